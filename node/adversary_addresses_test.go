package node

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// forbidden lists spellings of addresses and names that no host on the internet has.
var forbidden = strings.Fields(`
	127.0.0.1 127.1 127.0.1 127.0.0.1. 127.255.255.254 2130706433 0x7f000001 0x7f.1 0x7f.0.0.1 0x7F.0x0.0x0.0x1 017700000001 0177.0.0.1
	0177.0.0.01 127.0.0.0x1 00000177.0.0.1 127.0.0.01 0 0.0.0.0 0x0 00 [::] [::1] [0:0:0:0:0:0:0:1] [::0001] [::127.0.0.1] [::ffff:127.0.0.1]
	[::ffff:7f00:1] [0:0:0:0:0:ffff:127.0.0.1] [::ffff:0:127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::7f00:1] [2002:7f00:1::]
	[2001:0:0:0:0:0:80ff:fffe] [fe80::1] [fe80::1%25eth0] [::1%25lo] [fc00::1] [fd12:3456::1] [fec0::1] [ff02::1] [::ffff:10.0.0.1]
	a.localdomain nas.lan a.home wiki.corp a.intranet 10.0.0.1 10.1 167772161 0xa000001 012.0.0.1 172.16.0.1 172.31.255.254 192.168.0.1 192.168.1 3232235777 0300.0250.1.1 100.64.0.1 198.18.0.1
	169.254.169.254 2852039166 0xa9fea9fe 0251.0376.0251.0376 169.254.43518 [::ffff:169.254.169.254] [::ffff:a9fe:a9fe] [64:ff9b::a9fe:a9fe]
	[2002:a9fe:a9fe::] 169.254.170.2 169.254.170.23 100.100.100.200 168.63.129.16 192.0.0.192 [fd00:ec2::254] [fd20:ce::254] 169.254.42.42
	metadata.google.internal metadata.goog metadata instance-data
	224.0.0.1 255.255.255.255 240.0.0.1 192.0.2.1 198.51.100.1 203.0.113.1 8.8.8.8 [2606:4700::1111]
	localhost localhost. LOCALHOST localhost.localdomain ip6-localhost a.localhost app.localhost. registry vault
	a.local printer.local. a.internal db.corp.internal a.svc api.default.svc a.cluster.local kubernetes.default.svc.cluster.local
	nas.home.arpa a.onion a.invalid a.test reg.example.com. 127。0。0。1 １２７.0.0.1 ⑫7.0.0.1 ①②⑦.⓪.⓪.① loc%61lhost 127%2e0.0.1 169.254.169.254.
	user@127.0.0.1 evil.net@127.0.0.1 127.0.0.1:443 localhost:443 [::1]:443 127.0.0.1:22 evil.net:22 evil.net:80 evil.net:0443 evil.net:8443`)

// doors lists the ways in which a client, or a registry that it chose, can name a host
// for the node to ask.
var doors = map[string]func(w *world, host string) answer{
	"as the registry in a name": func(w *world, host string) answer {
		return w.ask(http.MethodGet, "/v2/"+url.PathEscape(host)+"/a/b/manifests/v1")
	},
	"as ns": func(w *world, host string) answer {
		return w.ask(http.MethodGet, "/v2/a/b/manifests/v1?ns="+url.QueryEscape(host))
	},
	"as a redirect's target": func(w *world, host string) answer {
		return w.ask(http.MethodGet, "/v2/leads.evil.net/a/b/manifests/redirect?to="+url.QueryEscape(host))
	},
	"as a token server": func(w *world, host string) answer {
		return w.ask(http.MethodGet, "/v2/leads.evil.net/a/b/manifests/realm")
	},
}

// TestForbiddenAddresses tries each spelling at each door, with and without a proxy
// that would reach all of them.
func TestForbiddenAddresses(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, host := range forbidden {
		if seen[host] {
			t.Errorf("%s is listed twice", host)
		}
		seen[host] = true
	}
	if t.Logf("%d spellings, %d doors", len(seen), len(doors)); len(seen) < 60 {
		t.Errorf("%d spellings, want 60", len(seen))
	}
	for door, open := range doors {
		t.Run("through a proxy/"+door, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{})
			target := ""
			w.net.others = serveHello
			w.net.host("https://leads.evil.net", func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/realm") {
					rw.Header()["Www-Authenticate"] = []string{`Bearer realm="https://` + target + `/token"`}
					rw.WriteHeader(http.StatusUnauthorized)
					return
				}
				rw.Header()["Location"] = []string{"https://" + target + "/x"}
				rw.WriteHeader(http.StatusFound)
			})
			for _, host := range forbidden {
				before := len(w.net.all())
				target = host
				a := open(w, host)
				for _, v := range w.net.all()[before:] {
					if !strings.HasSuffix(v.to, "://leads.evil.net:443") && !strings.HasSuffix(v.to, "://reg.example.com:443") {
						t.Errorf("%s: %s was asked", host, v.to)
					}
				}
				// Without a dot or a colon it is not a host but an image of the default registry.
				if a.StatusCode < 400 && strings.ContainsAny(host, ".:") {
					t.Errorf("%s: %d %.100q", host, a.StatusCode, a.body)
				}
			}
			if n := dns.lookups("leads.evil.net"); n > 0 {
				t.Errorf("%d names looked up here", n)
			}
		})
	}
}

// The names that people use work with a config that names none of them.
func TestWellKnownRegistriesAreReached(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	w.net.others = serveHello
	wellKnown := strings.Fields(`docker.io registry-1.docker.io ghcr.io quay.io gcr.io us-docker.pkg.dev registry.k8s.io k8s.gcr.io mcr.microsoft.com
		nvcr.io public.ecr.aws 123456789012.dkr.ecr.eu-west-1.amazonaws.com registry.gitlab.com myregistry.azurecr.io lscr.io
		registry.access.redhat.com registry.redhat.io icr.io docker.elastic.co container-registry.oracle.com cr.l5d.io
		harbor.example.org dhi.io registry.opensuse.org codeberg.org`)
	if len(wellKnown) < 20 {
		t.Errorf("%d names", len(wellKnown))
	}
	for _, host := range wellKnown {
		for _, path := range []string{"/v2/" + host + "/team/app/blobs/" + helloDigest, "/v2/team/app/blobs/" + helloDigest + "?ns=" + host} {
			w.wantHello(w.ask(http.MethodGet, path))
		}
	}
}

func addressAttacks() []attack {
	rebound := func(name string, addrs ...string) attack {
		return attack{"a name that a client chose means " + name, "that address is dialled", func(t *testing.T) {
			inner := upstreamtest.New(t) // a server inside the network
			host := strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ",", "") + ".rebind.net"
			dns.say(host, addrs...)
			p := newProxy(t, inner, settings{registry: "private: false"})
			for range 3 {
				a := p.get("/v2/a/b/manifests/v1?ns=" + host)
				if d := a.wantError(t, http.StatusBadGateway, "UNAVAILABLE"); d.UpstreamHost != host || !slices.ContainsFunc(addrs, func(one string) bool { return strings.Contains(d.Reason, one) }) {
					t.Errorf("detail %+v, want the address for those on this machine", d)
				}
			}
			if dns.lookups(host) == 0 {
				t.Error("it was not looked up, so this tested nothing")
			}
		}}
	}
	return []attack{
		rebound("loopback", "127.0.0.1"),
		rebound("loopback, then metadata, then private", "127.0.0.1", "169.254.169.254", "10.0.0.1"),
		rebound("a private address", "10.11.12.13"),
		rebound("a shared address", "100.64.1.1"),
		rebound("metadata", "169.254.169.254"),
		rebound("the wire server", "168.63.129.16"),
		rebound("this network", "0.0.0.0"),
		rebound("documentation", "192.0.2.1"),
		rebound("benchmarks", "198.18.0.1"),
		rebound("multicast", "224.0.0.1"),
		{"a configured registry's name means metadata", "that is dialled", func(t *testing.T) {
			dns.say("mine.rebind.org", "169.254.169.254")
			p := newProxy(t, upstreamtest.New(t), settings{more: "  mine.rebind.org: {auth: {username: u, password: p}}"})
			a := p.get("/v2/mine.rebind.org/a/b/manifests/v1")
			if d := a.wantError(t, http.StatusBadGateway, "UNAVAILABLE"); !strings.Contains(d.Reason, "metadata") {
				t.Errorf("detail %+v", d)
			}
		}},
		{"a configured registry is a metadata address", "that is dialled", func(t *testing.T) {
			p := newProxy(t, upstreamtest.New(t), settings{more: "  169.254.169.254: {insecure: true}"})
			p.get("/v2/169.254.169.254/a/b/manifests/v1").wantError(t, http.StatusForbidden, "DENIED")
		}},
		{"a configured registry behind a proxy is the metadata service by name", "the proxy is asked for it", func(t *testing.T) {
			w := newWorld(t, settings{more: "  metadata.google.internal: {insecure: true}"})
			w.net.others = serveHello
			w.wantRefused(w.ask(http.MethodGet, "/v2/metadata.google.internal/a/b/manifests/v1"))
		}},
		{"a closed network has no DNS, or one that lies", "a name is looked up there instead of by the proxy", func(t *testing.T) {
			dns.say("cdn.closed.org", "127.0.0.1")
			w := newWorld(t, settings{more: "  reg.closed.org: {auth: {username: robot, password: " + robotsPassword + "}}"})
			w.places[robotsToken] = "https://reg.closed.org:443"
			w.places[basicOf("robot", robotsPassword)] = "https://auth.closed.org:443"
			w.net.host("https://auth.closed.org", giveToken)
			w.net.host("https://cdn.closed.org", serveAnything)
			w.net.host("https://reg.closed.org", along([]string{"", "https://cdn.closed.org/x"}, 307, challenge("https://auth.closed.org/token")))
			w.wantHello(w.ask(http.MethodGet, "/v2/reg.closed.org/team/app/blobs/"+helloDigest))
			if n := dns.lookups("closed.org"); n > 0 {
				t.Errorf("%d look-ups", n)
			}
		}},
		{"an inside registry redirects to metadata", "that is dialled", func(t *testing.T) {
			up := upstreamtest.New(t)
			p := newProxy(t, up, settings{})
			for _, ip := range []string{"169.254.169.254", "100.100.100.200", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "[fe80::a9fe:a9fe]"} {
				up.ClearFaults()
				up.Fault(upstreamtest.Fault{Status: 302, Header: http.Header{"Location": {"http://" + ip + "/latest/meta-data"}}})
				p.get("/v2/a/b/manifests/v1").wantError(t, http.StatusForbidden, "DENIED")
			}
		}},
		{"a proxy's address is on loopback", "the guard opens loopback to others", func(t *testing.T) {
			w := newWorld(t, settings{})
			w.net.others = serveHello
			port := netip.MustParseAddrPort(w.net.proxy.Listener.Addr().String()).Port()
			if port == 0 {
				t.Fatal("no port")
			}
			w.wantRefused(w.ask(http.MethodGet, "/v2/a/b/manifests/v1?ns="+w.net.proxy.Listener.Addr().String()))
		}},
	}
}
