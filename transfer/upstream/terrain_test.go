package upstream

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
)

// A terrain is a network of the tests' own: what its DNS says, and what its addresses
// do. It counts the dials.
type terrain struct {
	mu      sync.Mutex
	names   func(ctx context.Context, family, host string) ([]netip.Addr, error)
	places  func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	dials   atomic.Int32
	now     atomic.Int32 // under way
	most    atomic.Int32 // at a time
	lookups atomic.Int32
}

// at puts r on the terrain.
func (n *terrain) at(r *registry) {
	r.net.dialer = &dialer{
		lookup: func(ctx context.Context, family, host string) ([]netip.Addr, error) {
			n.lookups.Add(1)
			n.mu.Lock()
			names := n.names
			n.mu.Unlock()
			return names(ctx, family, host)
		},
		connect: func(ctx context.Context, to netip.AddrPort, control control) (net.Conn, error) {
			n.dials.Add(1)
			n.most.Store(max(n.most.Load(), n.now.Add(1)))
			defer n.now.Add(-1)
			if control != nil {
				if err := control(ctx, "tcp", to.String(), nil); err != nil {
					return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
				}
			}
			n.mu.Lock()
			places := n.places
			n.mu.Unlock()
			conn, err := places(ctx, to)
			if err != nil {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
			}
			return conn, nil
		},
	}
}

// become changes what addresses do.
func (n *terrain) become(places func(context.Context, netip.AddrPort) (net.Conn, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.places = places
}

// means is a DNS in which every name has these addresses.
func means(ips ...string) func(context.Context, string, string) ([]netip.Addr, error) {
	return func(_ context.Context, family, host string) (out []netip.Addr, err error) {
		for _, s := range ips {
			if ip := netip.MustParseAddr(s); ip.Is4() == (family == "ip4") {
				out = append(out, ip)
			}
		}
		if out == nil {
			err = &net.DNSError{Name: host, IsNotFound: true}
		}
		return out, err
	}
}

// says is a DNS that fails.
func says(err net.DNSError) func(context.Context, string, string) ([]netip.Addr, error) {
	return func(context.Context, string, string) ([]netip.Addr, error) { return nil, &err }
}

// silentDNS answers nothing.
func silentDNS(ctx context.Context, _, host string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, &net.DNSError{Name: host, IsTimeout: true}
}

// blackhole swallows packets.
func blackhole(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
	<-ctx.Done()
	return nil, timeoutError{}
}

// refuses fails at once.
func refuses(err error) func(context.Context, netip.AddrPort) (net.Conn, error) {
	return func(context.Context, netip.AddrPort) (net.Conn, error) { return nil, err }
}

// mute accepts and says nothing.
func mute(context.Context, netip.AddrPort) (net.Conn, error) {
	here, there := net.Pipe()
	go func() { _, _ = there.Read(make([]byte, 1<<10)) }()
	return located{here, "8.8.8.8:443"}, nil
}

// A located connection has an address, which pipes lack.
type located struct {
	net.Conn
	at string
}

func (c located) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.at))
}

// greets answers each request with "hello" over plain HTTP.
func greets(_ context.Context, to netip.AddrPort) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		for r := bufio.NewReader(there); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			resp := reply(200, "hello")
			resp.ProtoMajor, resp.ProtoMinor, resp.Request = 1, 1, req
			if resp.Write(there) != nil {
				return
			}
		}
	}()
	return located{here, to.String()}, nil
}

// onTerrain returns a client for reg.example.com on the terrain.
func onTerrain(t *testing.T, n *terrain, cfg Registry) *Client {
	t.Helper()
	cfg.Host, cfg.Configured, cfg.FollowRedirects = "reg.example.com", true, true
	c := newClient(t, cfg)
	n.at(c.named[cfg.Host])
	c.named[cfg.Host].home.plain.Store(cfg.Insecure)
	return c
}
