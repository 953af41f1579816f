package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// A dialer makes TCP connections. It looks up both families of addresses by
// themselves and tries the addresses side by side (RFC 8305). net.Dialer waits for
// both families, tries the addresses of one family one after the other and gives each
// two seconds or more: a name of which a few addresses are dead is not reached then.
type dialer struct {
	lookup  func(ctx context.Context, family, host string) ([]netip.Addr, error) // family: ip4 or ip6
	connect func(ctx context.Context, to netip.AddrPort, control control) (net.Conn, error)
	doubts  doubts
}

// A control is a net.Dialer's ControlContext.
type control func(ctx context.Context, network, address string, _ syscall.RawConn) error

// newDialer returns a dialer that uses the system's resolver.
func newDialer() *dialer {
	return &dialer{lookup: hastyResolver(net.DefaultResolver).LookupNetIP, connect: connect}
}

// maxAddresses bounds how many addresses of a name are tried.
const maxAddresses = 16

// dial connects to addr, a host:port. control judges each address.
func (d *dialer) dial(ctx context.Context, addr string, control control) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	host, number, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	ips, err := d.addresses(ctx, host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	t := tripOf(ctx)
	t.means.Store(&ips)
	t.enter(connecting)
	to := make([]netip.AddrPort, 0, len(ips))
	for _, ip := range ips {
		to = append(to, netip.AddrPortFrom(ip, uint16(port)))
	}
	d.doubts.last(to)
	return d.race(ctx, to[:min(len(to), maxAddresses)], control)
}

// A found is what is known of one family of a name's addresses.
type found struct {
	family string
	ips    []netip.Addr
	err    error
}

// addresses returns the addresses of host, IPv6 and IPv4 in turn. Some resolvers never
// answer for one of the two, so once there is an address, the other family has
// familyGrace left.
func (d *dialer) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	tripOf(ctx).step.Store(lookingUp)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	families := []string{"ip6", "ip4"}
	answers := make(chan found, len(families))
	for _, family := range families {
		go func() {
			ips, err := d.lookup(ctx, family, host)
			answers <- found{family, ips, err}
		}()
	}
	known := map[string]found{}
	var late <-chan time.Time
	for len(known) < len(families) {
		select {
		case one := <-answers:
			known[one.family] = one
			if len(one.ips) > 0 && late == nil {
				late = time.After(familyGrace)
			}
			continue
		case <-late:
		}
		break
	}
	ips := inTurn(known["ip6"].ips, known["ip4"].ips)
	if len(ips) > 0 {
		return ips, nil
	}
	return nil, lookupError(host, known["ip4"].err, known["ip6"].err)
}

// lookupError returns why host has no address. That the name does not exist, or has no
// address of one family, says less than any other failure.
func lookupError(host string, errs ...error) error {
	for _, err := range errs {
		dns, ok := errors.AsType[*net.DNSError](err)
		if err != nil && !(ok && dns.IsNotFound) {
			return err
		}
	}
	return &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// inTurn returns the addresses of both lists, one of each in turn.
func inTurn(a, b []netip.Addr) []netip.Addr {
	var all []netip.Addr
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			all = append(all, a[i])
		}
		if i < len(b) {
			all = append(all, b[i])
		}
	}
	return all
}

// race connects to the first of the addresses that accepts. It begins with the first,
// and with the next when one fails or nothing has happened for attemptDelay.
func (d *dialer) race(ctx context.Context, to []netip.AddrPort, control control) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	next := time.NewTimer(0)
	defer next.Stop()
	var worst error
	for begun, ended := 0, 0; ended < len(to); {
		select {
		case <-next.C:
			if begun == len(to) {
				continue
			}
			go func(place netip.AddrPort) {
				conn, err := d.connect(ctx, place, control)
				select {
				case results <- result{conn, err}:
				case <-ctx.Done():
					if conn != nil {
						_ = conn.Close() // another was faster
					}
				}
			}(to[begun])
			begun++
			next.Reset(attemptDelay)
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			worst = telling(worst, r.err)
			ended++
			next.Reset(0)
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: telling(worst, context.Cause(ctx))}
		}
	}
	return nil, worst
}

// telling returns which of two failures tells more: our own refusal first, and last
// that this machine has no route, as for IPv6 on most.
func telling(a, b error) error {
	rank := func(err error) int {
		_, ours := errors.AsType[*refusal](err)
		switch {
		case err == nil:
			return 0
		case ours:
			return 3
		case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
			return 1
		default:
			return 2
		}
	}
	if rank(b) > rank(a) {
		return b
	}
	return a
}

// connect makes one connection.
func connect(ctx context.Context, to netip.AddrPort, control control) (net.Conn, error) {
	d := net.Dialer{KeepAlive: 30 * time.Second, ControlContext: control}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
		noticeLoss(tcp)
	}
	return conn, err
}

// tcpUserTimeout is TCP_USER_TIMEOUT, which package syscall does not name.
const tcpUserTimeout = 18

// noticeLoss makes the kernel give up a connection on which nothing is acknowledged
// for lossTime (tcp(7)): an idle connection may have died unnoticed, and a request on
// it would wait for an answer in vain.
func noticeLoss(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // without it the header's time-out does
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(lossTime.Milliseconds()))
	})
}

// A hastyConn is a connection to a resolver that waits for resolverTry at most. The
// system's configuration says 5 s mostly: where the first of two resolvers is dead,
// each look-up would take that long.
type hastyConn struct{ net.Conn }

// SetDeadline implements net.Conn.
func (c hastyConn) SetDeadline(t time.Time) error { return c.Conn.SetDeadline(soon(t)) }

// A hastyPacketConn is a hastyConn over UDP. net tells the two apart by their type.
type hastyPacketConn struct{ *net.UDPConn }

// SetDeadline implements net.Conn.
func (c hastyPacketConn) SetDeadline(t time.Time) error { return c.UDPConn.SetDeadline(soon(t)) }

// soon returns t, or if that is later, the end of a try from now on.
func soon(t time.Time) time.Time {
	if most := time.Now().Add(resolverTry); t.After(most) {
		return most
	}
	return t
}

// hastyResolver returns a resolver like r whose tries are short.
func hastyResolver(r *net.Resolver) *net.Resolver {
	dial := r.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &net.Resolver{PreferGo: r.PreferGo, StrictErrors: r.StrictErrors, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, resolverTry)
		defer cancel()
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if udp, ok := conn.(*net.UDPConn); ok {
			return hastyPacketConn{udp}, nil
		}
		return hastyConn{conn}, nil
	}}
}
