package upstream

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"oci-proxy/transfer/oci"
)

func TestOnlyPublicAddressesAreDialledForStrangers(t *testing.T) {
	t.Parallel()
	g := newGuard(newHome("reg.example.com", false), Registry{})
	for _, address := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255",
		"127.0.0.1", "127.1.2.3", "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255",
		"192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255",
		"198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16",
		"[::]", "[::1]", "[::127.0.0.1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]",
		"[::ffff:0:127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::1]", "[100::1]", "[2001::1]", "[2001:db8::1]",
		"[2002:7f00:1::]", "[2002:a9fe:a9fe::]", "[3fff::1]", "[fc00::1]", "[fd00:ec2::254]", "[fdff::1]", "[fe80::1]",
		"[fe80::1%eth0]", "[::1%lo]", "[::ffff:127.0.0.1%lo]", "[fec0::1]", "[ff02::1]", "[ff0e::1]", "[5f00::1]",
	} {
		if err := g.control("reg.example.com:443")(t.Context(), "tcp", address+":443", nil); err == nil {
			t.Errorf("%s may be dialled", address)
		}
	}
	for _, address := range []string{
		"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1",
		"192.0.1.1", "198.17.0.1", "223.255.255.255", "[2606:4700::1111]", "[2a00:1450::1]", "[::ffff:8.8.8.8]",
	} {
		if err := g.control("reg.example.com:443")(t.Context(), "tcp", address+":443", nil); err != nil {
			t.Errorf("%s may not be dialled: %v", address, err)
		}
		if err := g.control("reg.example.com:80")(t.Context(), "tcp", address+":80", nil); err == nil {
			t.Errorf("%s may be dialled on port 80", address)
		}
	}
}

func TestStrangersHaveAPublicName(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	for _, host := range []string{
		"", "localhost", "registry", "a.local", "a.internal", "a.localhost", "a.svc", "a.b.cluster.local", "a.home.arpa",
		"a.onion", "a.invalid", "a.test", "127.0.0.1", "8.8.8.8", "1.1.1.1:443", "[::1]", "[2606:4700::1111]", "[::1]:443",
		"127.1", "0177.0.0.1", "0x7f.0.0.1", "0x7f.1", "127.0.0.0x1", "2130706433", "0x7f000001", "017700000001",
		"reg.example.com.", "127.0.0.1.", "reg..example.com", ".example.com", "-a.example.com", "a-.example.com",
		"reg.example.com:80", "reg.example.com:5000", "reg.example.com:0443", "user@reg.example.com", "reg.example.com/x",
		"REG.example.com", "rég.example.com", "127。0。0。1", "１２７.0.0.1", "reg.example.com%00", "a b.example.com", "fe80::1%25eth0",
	} {
		if _, err := c.registry(host); err == nil {
			t.Errorf("%q is asked", host)
		} else if oci.KindOf(err) != oci.Denied {
			t.Errorf("%q: %v", host, err)
		}
	}
	for _, host := range []string{
		"ghcr.io", "quay.io", "registry-1.docker.io", "gcr.io", "us-docker.pkg.dev", "registry.k8s.io", "mcr.microsoft.com",
		"nvcr.io", "public.ecr.aws", "registry.gitlab.com", "123.dkr.ecr.eu-west-1.amazonaws.com", "x.azurecr.io:443", "lscr.io",
	} {
		if _, err := c.registry(host); err != nil {
			t.Errorf("%q is not asked: %v", host, err)
		}
	}
}

func TestTheInsideIsReachedFromTheInsideOnly(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		home, to string
		own, ok  bool
	}{
		"own address, loopback":            {"", "127.0.0.1", true, true},
		"own address, private":             {"", "10.1.1.1", true, true},
		"own address, metadata":            {"", "169.254.169.254", true, false},
		"own address, metadata as NAT64":   {"", "64:ff9b::a9fe:a9fe", true, false},
		"own address, metadata as 6to4":    {"", "2002:a9fe:a9fe::1", true, false},
		"own address, metadata as mapped":  {"", "::ffff:168.63.129.16", true, false},
		"own address, metadata by any NAT": {"", "2606:4700:64::a9fe:a9fe", true, false},
		"own address, metadata on a link":  {"", "fe80::a9fe:a9fe%eth0", true, false},
		"own address, metadata by Teredo":  {"", "2001::5601:5601", true, false},
		"own address, EKS":                 {"", "169.254.170.23", true, false},
		"own address, Oracle":              {"", "192.0.0.192", true, false},
		"own address, Google by IPv6":      {"", "fd20:ce::254", true, false},
		"from public to loopback":          {"8.8.8.8", "127.0.0.1", false, false},
		"from public to private":           {"8.8.8.8", "192.168.1.1", false, false},
		"from public to public":            {"8.8.8.8", "1.1.1.1", false, true},
		"from nowhere yet to private":      {"", "10.0.0.1", false, false},
		"from loopback to loopback":        {"127.0.0.1", "127.0.0.1", false, true},
		"from loopback to IPv6 loopback":   {"127.0.0.1", "::1", false, true},
		"from private to unique local":     {"10.0.0.1", "fd12::1", false, true},
		"from private to loopback":         {"10.0.0.1", "127.0.0.1", false, false},
		"from private to mapped loopback":  {"10.0.0.1", "::ffff:127.0.0.1", false, false},
		"from private to IPv6 loopback":    {"fd12::1", "::1", false, false},
		"from private to a link":           {"10.0.0.1", "169.254.7.7", false, false},
		"from private to an IPv6 link":     {"10.0.0.1", "fe80::1%eth0", false, false},
		"from private to private":          {"10.0.0.1", "192.168.1.1", false, true},
		"from loopback to private":         {"127.0.0.1", "10.0.0.1", false, true},
		"from private to metadata":         {"10.0.0.1", "169.254.169.254", false, false},
		"from private to ECS metadata":     {"10.0.0.1", "169.254.170.2", false, false},
		"from private to Alibaba metadata": {"10.0.0.1", "100.100.100.200", false, false},
		"from private to AWS metadata":     {"10.0.0.1", "fd00:ec2::254", false, false},
		"from private to unspecified":      {"10.0.0.1", "0.0.0.0", false, false},
		"from private to multicast":        {"10.0.0.1", "224.0.0.1", false, false},
		"from private to wrapped loopback": {"10.0.0.1", "64:ff9b::7f00:1", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuard(newHome("", false), Registry{Configured: true})
			if c.home != "" {
				g.seen(netip.MustParseAddr(c.home))
			}
			if err := g.admits(netip.MustParseAddr(c.to), c.own); (err == nil) != c.ok {
				t.Errorf("%s: %v", c.to, err)
			}
		})
	}
}

func TestWhereARegistryMayLead(t *testing.T) {
	t.Parallel()
	public := Registry{Host: "reg.example.com", Configured: true}
	insecure := Registry{Host: "reg.corp.internal:5000", Configured: true, Insecure: true}
	for name, c := range map[string]struct {
		cfg     Registry
		to      string
		proxied bool
		ok      bool
	}{
		"its CDN":                               {public, "https://cdn.example.net/x", false, true},
		"another port":                          {public, "https://cdn.example.net:8443/x", false, true},
		"plain http":                            {public, "http://cdn.example.net/x", false, false},
		"itself by plain http":                  {public, "http://reg.example.com/x", false, false},
		"another scheme":                        {public, "file:///etc/passwd", false, false},
		"gopher":                                {public, "gopher://cdn.example.net/x", false, false},
		"a private literal":                     {public, "https://10.0.0.1/x", false, false},
		"a metadata literal":                    {public, "https://169.254.169.254/x", false, false},
		"an IPv6 literal":                       {public, "https://[::1]/x", false, false},
		"an octal spelling":                     {public, "https://0177.0.0.1/x", false, false},
		"a short spelling through a proxy":      {public, "https://127.1/x", true, false},
		"a decimal spelling through a proxy":    {public, "https://2130706433/x", true, false},
		"a full-width spelling through a proxy": {public, "https://１２７.0.0.1/x", true, false},
		"an internal name through a proxy":      {public, "https://minio.svc.cluster.local/x", true, false},
		"localhost through a proxy":             {public, "https://localhost/x", true, false},
		"a private literal through a proxy":     {public, "https://192.168.0.1/x", true, false},
		"from inside to an internal name":       {insecure, "http://minio.corp.internal:9000/x", true, true},
		"insecure: plain http":                  {insecure, "http://cdn.example.net/x", false, true},
		"a stranger's CDN":                      {Registry{Host: "reg.example.com"}, "https://cdn.example.net/x", false, true},
		"a stranger's other port":               {Registry{Host: "reg.example.com"}, "https://cdn.example.net:8443/x", false, false},
		"a stranger's plain http":               {Registry{Host: "reg.example.com"}, "http://cdn.example.net/x", false, false},
		"a stranger's public literal":           {Registry{Host: "reg.example.com"}, "https://8.8.8.8/x", false, false},
		"metadata by its name":                  {public, "https://metadata.google.internal/x", false, false},
		"metadata by its name, from inside":     {insecure, "http://metadata.google.internal./x", true, false},
		"itself, in hexadecimal":                {Registry{Host: "0xa9fea9fe", Configured: true, Insecure: true}, "http://0xa9fea9fe/x", true, false},
		"a stranger's name that nobody can own": {Registry{Host: "reg.example.com"}, "https://nas.lan/x", true, false},
		"a stranger's internal name":            {Registry{Host: "reg.example.com"}, "https://x.internal/x", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newClientFor(t, c.cfg).net.guard
			if err := g.permits(mustURL(t, c.to), c.proxied); (err == nil) != c.ok {
				t.Errorf("%s: %v", c.to, err)
			}
		})
	}
}

// Whoever controls the name of a registry with a public address could make it mean a
// private address the next moment, and then redirect there. So it counts where its
// answers come from.
func TestARegistryLeadsInsideIfItAnswersFromThere(t *testing.T) {
	t.Parallel()
	home, away := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("8.8.8.8")
	for name, c := range map[string]struct {
		answers []netip.Addr
		inside  bool
	}{
		"none":                         {nil, false},
		"public":                       {[]netip.Addr{away}, false},
		"public, then private":         {[]netip.Addr{away, home}, true},
		"private, then public":         {[]netip.Addr{home, away}, false},
		"private, public, private":     {[]netip.Addr{home, away, home}, true},
		"private, then from nobody":    {[]netip.Addr{home, {}}, true},
		"private once, public, public": {[]netip.Addr{home, away, away}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newClientFor(t, Registry{Host: "reg.example.com", Configured: true}).net.guard
			for _, ip := range c.answers {
				g.seen(ip)
			}
			if err := g.admits(home, true); err != nil { // its name means that now
				t.Error(err)
			}
			if to := g.admits(netip.MustParseAddr("10.0.0.2"), false); (to == nil) != c.inside || (g.permits(mustURL(t, "https://vault.internal/x"), true) == nil) != c.inside {
				t.Errorf("it leads inside: %v, want %v", to == nil, c.inside)
			}
		})
	}
}

// TestRebinding checks that the guard looks at the address of each connection, whatever
// address the name had before.
func TestRebinding(t *testing.T) {
	t.Parallel()
	outside := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // so that the name is looked up again
		http.Redirect(w, r, "/v2/secrets", http.StatusFound)
	})
	r := newClientFor(t, Registry{Host: "reg.example.com"})
	dialled := 0
	transport := r.net.transport(nil, true)
	transport.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled++
		meant := netip.MustParseAddr("8.8.8.8")
		if dialled > 1 {
			meant = netip.MustParseAddr("127.0.0.1")
		}
		if err := r.net.guard.control(addr)(ctx, network, netip.AddrPortFrom(meant, 443).String(), nil); err != nil {
			return nil, err
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", outside) // the test's stand-in for 8.8.8.8
	}
	t.Cleanup(transport.CloseIdleConnections)
	r.net.own, r.net.elsewhere = transport, transport
	_, err := r.hops.follow(t.Context(), ask{method: http.MethodGet}, pass{})
	f, ok := errors.AsType[*failure](err)
	if !ok || f.Reason != noPublicAddress || dialled != 2 {
		t.Errorf("%v after %d connections, want a refusal at the second", err, dialled)
	}
}

// newClientFor returns the registry that cfg describes.
func newClientFor(t *testing.T, cfg Registry) *registry {
	t.Helper()
	roots, err := cfg.check()
	if err != nil {
		t.Fatal(err)
	}
	return newRegistry(cfg, roots, nil, newClient(t).life, slog.New(slog.DiscardHandler))
}

func TestStrangersAreForgottenBeyondTheirBound(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	first, err := c.registry("r0.example.com")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxStrangers + 10 {
		if _, err := c.registry("s" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + ".example.com"); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 { // in use, so it stays
			if again, _ := c.registry("r0.example.com"); again != first {
				t.Fatal("a registry in use was forgotten")
			}
		}
	}
	if n := len(c.strangers.all()); n != maxStrangers {
		t.Errorf("%d kept, want %d", n, maxStrangers)
	}
}
