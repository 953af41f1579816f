package upstream

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// heard returns ctx, and what it was told when a test looks.
func heard(ctx context.Context) (context.Context, func() []Trip) {
	var mu sync.Mutex
	var all []Trip
	hear := func(one Trip) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, one)
	}
	return Told(ctx, hear), func() []Trip {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// Each request is told with who was asked and how far it came, and no secret.
func TestTripsAreTold(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t, upstreamtest.TLS(), upstreamtest.Redirect(), upstreamtest.Bearer(upstreamtest.BearerAuth{User: "user", Password: canary, SeparateHost: true}))
	cfg := withLogin(plainly(up.Host()))
	cfg.Insecure, cfg.CAFile, cfg.RealmHosts = false, up.CAFile(), []string{"127.0.0.1"}
	c := newClient(t, cfg)
	ctx, told := heard(t.Context())
	if _, err := c.Greet(ctx, up.Host()); err != nil {
		t.Fatal(err)
	}
	ref := oci.Ref{Registry: up.Host(), Repository: "team/app", Digest: up.PutBlob("team/app", []byte("hello"))}
	s, _, err := c.UpTo(ctx, ref, oci.Span{Length: 1})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Body.Close() // nothing of it is wanted
	var got []string
	for _, one := range told() {
		got = append(got, one.To.String())
		if one.Leg != Answer || one.Err != nil || one.Status == 0 || !strings.HasPrefix(one.TLS, "TLS 1.") || one.Expires.IsZero() || one.Remote != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("%+v", one)
		}
	}
	want := "registry token server registry registry token server registry storage"
	if all := strings.Join(got, " "); all != want {
		t.Errorf("told of %s, want %s", all, want)
	}
	if last := told()[len(told())-2]; last.Status != 307 || last.Location == "" || last.Location == up.Host() {
		t.Errorf("the redirect: %+v", last)
	}
	if first := told()[0]; first.Took[Connect] <= 0 || first.Took[Secure] <= 0 || first.Took[Answer] <= 0 {
		t.Errorf("the legs of the first took %v", first.Took)
	}
}

// A request that does not come about is told with the leg on which it failed.
func TestTripsThatFailAreTold(t *testing.T) {
	t.Parallel()
	refuses := func(context.Context, netip.AddrPort) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	for name, c := range map[string]struct {
		names  func(context.Context, string, string) ([]netip.Addr, error)
		places func(context.Context, netip.AddrPort) (net.Conn, error)
		leg    Leg
		reason string
	}{
		"no such host": {means(), refuses, LookUp, "no such host"},
		"nobody there": {means("192.0.2.1"), refuses, Connect, "connection refused"},
		"no TLS": {means("192.0.2.1"), func(context.Context, netip.AddrPort) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				_, _ = io.CopyN(io.Discard, theirs, 64) // whatever comes is no TLS to it
				go func() { _, _ = io.Copy(io.Discard, theirs) }()
				_, _ = theirs.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\n")) // the other end closes
			}()
			return ours, nil
		}, Secure, "does not speak TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, Registry{Host: "reg.example.com", Configured: true, AllowAddresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
			(&terrain{names: c.names, places: c.places}).at(client.named["reg.example.com"])
			ctx, told := heard(t.Context())
			if _, err := client.Greet(ctx, "reg.example.com"); err == nil {
				t.Fatal("it answered")
			}
			all := told()
			if len(all) != 1 || all[0].Leg != c.leg || all[0].Err == nil || !strings.Contains(all[0].Err.Error(), c.reason) || all[0].Status != 0 || all[0].To != oci.Registry {
				t.Errorf("told of %+v, want a failure on leg %d: %s", all, c.leg, c.reason)
			}
		})
	}
}
