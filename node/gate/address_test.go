package gate

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// Without auth, clients on this machine are operators. A client that comes through a
// proxy on this machine is not one, as far as the proxy tells.
func TestClientsOnThisMachine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, remote, local, listens string
		header                       http.Header
		ok                           bool
	}{
		{"loopback", "127.0.0.1:40000", "127.0.0.1:80", "", nil, true},
		{"loopback, IPv6", "[::1]:40000", "[::1]:80", "", nil, true},
		{"loopback, IPv4 in IPv6", "[::ffff:127.0.0.1]:40000", "[::ffff:127.0.0.1]:80", "", nil, true},
		{"loopback to an own address", "127.0.0.1:40000", "192.0.2.1:80", "192.0.2.1", nil, true},
		{"an own address to itself", "192.0.2.1:40000", "192.0.2.1:80", "192.0.2.1", nil, true},
		{"an own address to itself, IPv4 in IPv6", "192.0.2.1:40000", "[::ffff:192.0.2.1]:80", "192.0.2.1", nil, true},
		{"an own address with a zone", "[fe80::1%eth0]:40000", "[fe80::1%eth0]:80", "node.example", nil, true},
		{"its neighbour", "[fe80::2%eth0]:40000", "[fe80::1%eth0]:80", "node.example", nil, false},
		{"an own address, of a node that listens on all", "192.0.2.1:40000", "192.0.2.1:80", "", nil, false},
		{"the same, said in another way", "192.0.2.1:40000", "192.0.2.1:80", "0.0.0.0", nil, false},
		{"another address", "192.0.2.2:40000", "192.0.2.1:80", "192.0.2.1", nil, false},
		{"no local address", "192.0.2.1:40000", "", "192.0.2.1", nil, false},
		{"no address", "@", "@", "", nil, false},
		{"X-Forwarded-For", "127.0.0.1:40000", "127.0.0.1:80", "", http.Header{"X-Forwarded-For": {"192.0.2.2"}}, false},
		{"an empty one", "127.0.0.1:40000", "127.0.0.1:80", "", http.Header{"X-Forwarded-For": {""}}, false},
		{"Forwarded", "127.0.0.1:40000", "127.0.0.1:80", "", http.Header{"Forwarded": {"for=192.0.2.2"}}, false},
		{"Via", "127.0.0.1:40000", "127.0.0.1:80", "", http.Header{"Via": {"1.1 proxy"}}, false},
		{"X-Real-IP", "127.0.0.1:40000", "127.0.0.1:80", "", http.Header{"X-Real-Ip": {"192.0.2.2"}}, false},
		{"X-Forwarded-Proto", "127.0.0.1:40000", "127.0.0.1:80", "", http.Header{"X-Forwarded-Proto": {"https"}}, false},
		{"an own address through a proxy", "192.0.2.1:40000", "192.0.2.1:80", "192.0.2.1", http.Header{"X-Forwarded-Host": {"x"}}, false},
	} {
		r := httptest.NewRequest(http.MethodPost, "/_/leave", nil)
		r.RemoteAddr = test.remote
		if test.header != nil {
			r.Header = test.header
		}
		if a, err := net.ResolveTCPAddr("tcp", test.local); err == nil && test.local != "" {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, a))
		}
		if got := local(r, test.listens); got != test.ok {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func FuzzForwardedFor(f *testing.F) {
	for _, s := range []string{"", "10.0.0.1", "10.0.0.1, 127.0.0.1", ",", "[::1]:80", "fe80::1%eth0", strings.Repeat("127.0.0.1,", 50)} {
		f.Add(s)
	}
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	f.Fuzz(func(t *testing.T, said string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = "192.0.2.1:1234"
		r.Header.Set("X-Forwarded-For", said)
		a := addresses{trusted}
		if got := a.of(r); got.String() != "192.0.2.1" {
			t.Errorf("%q from an untrusted address was believed: %s", said, got)
		}
		r.RemoteAddr = "127.0.0.1:1234"
		got := a.of(r)
		last := strings.TrimSpace(said[strings.LastIndexByte(said, ',')+1:])
		if want := parseHop(last); said != "" && !within(trusted, want) && got != want {
			t.Errorf("%q: %s, want %s", said, got, want)
		}
	})
}
