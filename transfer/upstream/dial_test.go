package upstream

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

var tagged = oci.Ref{Registry: "reg.example.com", Repository: "team/app", Tag: "v1"}

// TestNothingCanBeReached: HEAD and GET of a pull together end within 10 s, whatever is
// broken and wherever; the second one at once, for the same reason.
func TestNothingCanBeReached(t *testing.T) {
	t.Parallel()
	proxy := &url.URL{Scheme: "http", Host: "proxy.example.com:3128"}
	socks := &url.URL{Scheme: "socks5", Host: "proxy.example.com:1080"}
	for name, c := range map[string]struct {
		terrain *terrain
		proxy   *url.URL
		most    time.Duration // of the first request
		reason  string
		host    string // at fault
	}{
		"the resolver is silent":          {&terrain{names: silentDNS}, nil, Patience, "the resolver does not answer", ""},
		"the resolver fails":              {&terrain{names: says(net.DNSError{IsTemporary: true})}, nil, Patience, "can't be looked up", ""},
		"no such host":                    {&terrain{names: says(net.DNSError{IsNotFound: true})}, nil, time.Second, "no such host", ""},
		"packets are swallowed":           {&terrain{names: means("8.8.8.8"), places: blackhole}, nil, Patience, "no connection in time", ""},
		"packets to many are swallowed":   {&terrain{names: means("8.8.8.8", "8.8.4.4", "2606:4700::1111"), places: blackhole}, nil, Patience, "no connection in time", ""},
		"refused":                         {&terrain{names: means("8.8.8.8"), places: refuses(syscall.ECONNREFUSED)}, nil, time.Second, "connection refused", ""},
		"no route":                        {&terrain{names: means("2606:4700::1111"), places: refuses(syscall.ENETUNREACH)}, nil, time.Second, "no route", ""},
		"TLS is swallowed":                {&terrain{names: means("8.8.8.8"), places: mute}, nil, Patience, "no TLS handshake in time", ""},
		"the proxy's name is not there":   {&terrain{names: says(net.DNSError{IsNotFound: true})}, proxy, time.Second, "no such host", proxy.Host},
		"the proxy's resolver is silent":  {&terrain{names: silentDNS}, proxy, Patience, "the resolver does not answer", proxy.Host},
		"packets to the proxy are lost":   {&terrain{names: means("10.0.0.1"), places: blackhole}, proxy, Patience, "no connection in time", proxy.Host},
		"the proxy refuses":               {&terrain{names: means("10.0.0.1"), places: refuses(syscall.ECONNREFUSED)}, proxy, time.Second, "connection refused", proxy.Host},
		"the proxy says nothing":          {&terrain{names: means("10.0.0.1"), places: mute}, proxy, Patience, "no connection in time", proxy.Host},
		"a socks proxy is not there":      {&terrain{names: means("10.0.0.1"), places: refuses(syscall.EHOSTUNREACH)}, socks, time.Second, "no route", socks.Host},
		"packets to a socks proxy vanish": {&terrain{names: means("10.0.0.1"), places: blackhole}, socks, Patience, "no connection in time", socks.Host},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if c.terrain.places == nil {
					c.terrain.places = refuses(errors.New("dialled without an address"))
				}
				client := onTerrain(t, c.terrain, Registry{Proxy: c.proxy})
				start := time.Now()
				_, err := client.Stat(t.Context(), tagged, false, nil)
				head := wantError(t, err, oci.KindOf(err), c.reason)
				if took := time.Since(start); took > c.most {
					t.Errorf("HEAD took %v, want %v at most", took, c.most)
				}
				time.Sleep(time.Millisecond) // in the bubble's time
				again := time.Now()
				_, err = client.Manifest(t.Context(), tagged, nil)
				get := wantError(t, err, head.Kind, head.Reason)
				if took := time.Since(again); took > glance {
					t.Errorf("GET took %v, want %v at most", took, glance)
				}
				for _, e := range []*oci.Error{head, get} {
					if !e.Passing() || !e.Unreached || !e.OtherNodeMayHelp() || e.Authoritative() || c.host != "" && e.Host != c.host {
						t.Errorf("%+v, want one that passes, without a connection, at %q", e, c.host)
					}
				}
				t.Logf("HEAD and GET took %v", time.Since(start))
				client.Close()
				time.Sleep(probeTime) // in the bubble's time: what is under way ends
			})
		})
	}
}

// TestOneProbeAtATime: while a place is out of reach, one dial to it is under way, and
// whoever asks meanwhile hears at once why.
func TestOneProbeAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &terrain{names: means("8.8.8.8"), places: blackhole}
		client := onTerrain(t, n, Registry{})
		_, err := client.Stat(t.Context(), tagged, false, nil)
		reason := wantError(t, err, oci.Timeout, "no connection in time").Reason
		n.most.Store(n.now.Load())
		for range 5 {
			time.Sleep(3 * time.Second) // in the bubble's time
			var all sync.WaitGroup
			for range 20 { // fewer than have their turn at a time
				all.Go(func() {
					start := time.Now()
					_, err := client.Stat(t.Context(), tagged, false, nil)
					wantError(t, err, oci.Timeout, reason)
					if took := time.Since(start); took > glance {
						t.Errorf("it took %v", took)
					}
				})
			}
			all.Wait()
		}
		if dials, most := n.dials.Load(), n.most.Load(); most != 1 || dials > 4 {
			t.Errorf("%d dials, %d at a time; want one at a time", dials, most)
		}
		client.Close()
		time.Sleep(probeTime) // in the bubble's time
	})
}

// TestWhatIsBackIsReached: a place that is there again is reached at once, however it
// was out of reach.
func TestWhatIsBackIsReached(t *testing.T) {
	t.Parallel()
	for name, places := range map[string]func(context.Context, netip.AddrPort) (net.Conn, error){
		"refused": refuses(syscall.ECONNREFUSED), "no route": refuses(syscall.EHOSTUNREACH),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := &terrain{names: means("8.8.8.8"), places: places}
				client := onTerrain(t, n, Registry{Insecure: true})
				for range 3 {
					_, err := client.Stat(t.Context(), tagged, false, nil)
					wantError(t, err, oci.Unavailable, "")
				}
				n.become(greets)
				wantHello(t, client, "reg.example.com")
				if age := client.named["reg.example.com"].net.outages.age("http://reg.example.com:80"); age != 0 {
					t.Errorf("still out of reach, for %v", age)
				}
			})
		})
	}
}

// TestASlowLineIsReached: nobody waits long for a slow connection, but the next request
// has it.
func TestASlowLineIsReached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &terrain{names: means("8.8.8.8"), places: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			if err := wait.For(ctx, dialTimeout-time.Second); err != nil {
				return nil, timeoutError{}
			}
			return greets(ctx, to)
		}}
		client := onTerrain(t, n, Registry{Insecure: true})
		_, err := client.Open(t.Context(), hello("reg.example.com"), 0)
		wantError(t, err, oci.Timeout, "no connection in time")
		time.Sleep(dialTimeout) // in the bubble's time
		start := time.Now()
		wantHello(t, client, "reg.example.com")
		if took := time.Since(start); took > 0 || n.dials.Load() != 1 {
			t.Errorf("%v, %d dials; want the connection that came late", took, n.dials.Load())
		}
	})
}

// TestAnOutageIsForgotten: after a while without requests a place is dialled by all who
// ask, with all patience.
func TestAnOutageIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOutages()
		p := &probe{began: time.Now(), ended: make(chan struct{})}
		o.failed("a", p, errors.New("no"), false)
		if o.known("a") == nil || o.patience("a", time.Hour) != glance || o.known("b") != nil {
			t.Error("not remembered")
		}
		time.Sleep(outageFor) // in the bubble's time
		if o.known("a") != nil || o.patience("a", time.Hour) != time.Hour || o.age("a") != 0 {
			t.Error("not forgotten")
		}
		for i := range 10 * maxOutages {
			o.failed(strings.Repeat("x", i), p, errors.New("no"), false)
			o.reached(strings.Repeat("y", i), p)
		}
		if o.byPlace.Len() != maxOutages || o.reaches.Len() != maxOutages {
			t.Errorf("%d and %d remembered, want %d", o.byPlace.Len(), o.reaches.Len(), maxOutages)
		}
	})
}

// TestAPlaceThatConnectsSlowlyIsNotOutOfReach: many requests at once may wait long for
// their connections; while some come about, nobody gives up.
func TestAPlaceThatConnectsSlowlyIsNotOutOfReach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const each, requests = 1500 * time.Millisecond, 4
		door := make(chan struct{}, 1) // one at a time gets in
		n := &terrain{names: means("8.8.8.8"), places: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			door <- struct{}{}
			<-time.After(each) // in the bubble's time
			<-door
			here, there := net.Pipe()
			go func() {
				defer there.Close()
				req, err := http.ReadRequest(bufio.NewReader(there))
				if err != nil {
					return
				}
				resp := reply(200, "hello")
				resp.ProtoMajor, resp.ProtoMinor, resp.Request, resp.Close = 1, 1, req, true
				_ = resp.Write(there) // the client sees
			}()
			return located{here, to.String()}, nil
		}}
		client := onTerrain(t, n, Registry{Insecure: true})
		var all sync.WaitGroup
		for range requests {
			all.Go(func() {
				if got, err := opened(t.Context(), client, hello("reg.example.com")); err != nil || got != "hello" {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
		start := time.Now()
		all.Wait()
		if took := time.Since(start); took < Patience {
			t.Errorf("it took %v: nobody had to wait", took)
		}
		n.become(blackhole)
		start = time.Now()
		_, err := client.Stat(t.Context(), tagged, false, nil)
		wantError(t, err, oci.Timeout, "no connection in time")
		if took := time.Since(start); took > Patience {
			t.Errorf("when nobody gets in any more, it took %v", took)
		}
		client.Close()
		time.Sleep(probeTime) // in the bubble's time
	})
}

// TestClientsThatLeaveAreNoOutage: only the network counts, not who gives up.
func TestClientsThatLeaveAreNoOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &terrain{names: means("8.8.8.8"), places: blackhole}
		client := onTerrain(t, n, Registry{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := client.Stat(ctx, tagged, false, nil); err == nil {
			t.Error("no error")
		}
		if err := client.named["reg.example.com"].net.outages.known("https://reg.example.com:443"); err != nil {
			t.Errorf("remembered: %v", err)
		}
		client.Close()
		time.Sleep(probeTime) // in the bubble's time
	})
}

// TestDeadAddresses: a name is reached if one of its addresses is.
func TestDeadAddresses(t *testing.T) {
	t.Parallel()
	only := func(alive string, otherwise func(context.Context, netip.AddrPort) (net.Conn, error)) func(context.Context, netip.AddrPort) (net.Conn, error) {
		return func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			if to.Addr() == netip.MustParseAddr(alive) {
				return greets(ctx, to)
			}
			return otherwise(ctx, to)
		}
	}
	half := func(family string, ips ...string) func(context.Context, string, string) ([]netip.Addr, error) {
		return func(ctx context.Context, asked, host string) ([]netip.Addr, error) {
			if asked != family {
				return silentDNS(ctx, asked, host)
			}
			return means(ips...)(ctx, asked, host)
		}
	}
	for name, c := range map[string]struct {
		terrain *terrain
		most    time.Duration
	}{
		"the last of eight":           {&terrain{names: means("8.8.8.1", "8.8.8.2", "8.8.8.3", "8.8.8.4", "8.8.8.5", "8.8.8.6", "8.8.8.7", "8.8.8.8"), places: only("8.8.8.8", blackhole)}, 7 * attemptDelay},
		"the last of eight, refused":  {&terrain{names: means("8.8.8.1", "8.8.8.2", "8.8.8.3", "8.8.8.4", "8.8.8.5", "8.8.8.6", "8.8.8.7", "8.8.8.8"), places: only("8.8.8.8", refuses(syscall.ECONNREFUSED))}, 0},
		"IPv6 is swallowed":           {&terrain{names: means("2606:4700::1", "2606:4700::2", "2606:4700::3", "8.8.8.8"), places: only("8.8.8.8", blackhole)}, attemptDelay},
		"there is no IPv6":            {&terrain{names: means("2606:4700::1", "8.8.8.8"), places: only("8.8.8.8", refuses(syscall.ENETUNREACH))}, 0},
		"there is no IPv4":            {&terrain{names: means("2606:4700::1", "8.8.8.8"), places: only("2606:4700::1", blackhole)}, 0},
		"nobody answers for IPv6":     {&terrain{names: half("ip4", "8.8.8.8"), places: only("8.8.8.8", blackhole)}, familyGrace},
		"nobody answers for IPv4":     {&terrain{names: half("ip6", "2606:4700::1"), places: only("2606:4700::1", blackhole)}, familyGrace},
		"one is slow, the other dead": {&terrain{names: means("8.8.8.1", "8.8.8.8"), places: only("8.8.8.8", func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) { return nil, wait.For(ctx, time.Second) })}, attemptDelay},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := onTerrain(t, c.terrain, Registry{Insecure: true})
				start := time.Now()
				wantHello(t, client, "reg.example.com")
				if took := time.Since(start); took > c.most {
					t.Errorf("it took %v, want %v at most", took, c.most)
				}
			})
		})
	}
}

// TestTheMostTellingFailureIsTold, of several addresses.
func TestTheMostTellingFailureIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &terrain{names: means("2606:4700::1", "8.8.8.8"), places: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			if to.Addr().Is6() {
				return nil, syscall.ENETUNREACH
			}
			return blackhole(ctx, to)
		}}
		_, err := onTerrain(t, n, Registry{}).Stat(t.Context(), tagged, false, nil)
		wantError(t, err, oci.Timeout, "no connection in time")
		time.Sleep(probeTime) // in the bubble's time
	})
	refused := &net.OpError{Op: "dial", Err: &refusal{reason: "no"}}
	if got := telling(telling(syscall.ENETUNREACH, syscall.ECONNREFUSED), refused); !errors.Is(got, refused) {
		t.Errorf("%v, want our own refusal", got)
	}
}

// TestResolversHaveASecond: whatever the system's configuration says.
func TestResolversHaveASecond(t *testing.T) {
	t.Parallel()
	silent, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r := hastyResolver(&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", silent.LocalAddr().String())
	}})
	conn, err := r.Dial(t.Context(), "udp", "192.0.2.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, ok := conn.(net.PacketConn); !ok {
		t.Error("the resolver takes it for a stream")
	}
	now := time.Now()
	for asked, want := range map[time.Time]time.Time{
		now.Add(time.Minute): now.Add(resolverTry), now.Add(time.Millisecond): now.Add(time.Millisecond),
	} {
		if got := soon(asked); got.Sub(want).Abs() > resolverTry/2 {
			t.Errorf("until %v, want %v", got.Sub(now), want.Sub(now))
		}
	}
}
