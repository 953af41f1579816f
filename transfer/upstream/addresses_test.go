package upstream

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
)

// TestWrappedAddresses: what embeds an IPv4 address that is not public is not public
// either, wherever RFC 6052 and others put it.
func TestWrappedAddresses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		// RFC 6052, 2.4, with 192.0.2.33, which is for documentation.
		"2001:4860:c000:221::", "2001:4860:1c0:2:21::", "2001:4860:122:c000:2:2100::", "2001:4860:122:3c0:0:221::",
		"2001:4860:122:344:c0:2:2100::", "2001:4860:122:344::192.0.2.33",
		// Private ones behind a network's own prefix of each length.
		"2a00:1098:a00:1::", "2a00:1098:10a:0:1::", "2a00:1098:2:a00:0:100::", "2a00:1098:2:30a:0:1::", "2a00:1098:2:3:a:1:200::", "2a00:1098:2c:1::a00:1",
		"2a00:1098:2c:1::c0a8:101", "2a00:1098:2c:1::7f00:1", "2a00:1098:2c:1::6440:1", "2a00:1098:2c:1::ac1f:ffff", "2a00:1098:2c:1::a9fe:1", "2a00:1098:2c:1::c612:1",
		"2a00:1098:2:3:a:1:2ab:cdef", "2a00:1098:2:c0a8:1:100:ab:cdef", // with a suffix
		"64:ff9b::10.0.0.1", "64:ff9b::192.168.1.1", "64:ff9b::127.0.0.1", "64:ff9b::224.0.0.1", "64:ff9b::0.0.0.1", "64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff::10.0.0.1",
		"2002:a00:1::1", "2002:808:808::1", "2001:0:4136:e378:8000:63bf:f5ff:fffe", // 6to4, Teredo
		"2a00:1098:2:3:0:5efe:a00:1", "2a00:1098:2:3:200:5efe:c0a8:101", // ISATAP
		"::ffff:10.0.0.1", "::10.0.0.1", "::ffff:0:10.0.0.1",
	} {
		if ip := netip.MustParseAddr(s); public(ip) {
			t.Errorf("%s counts as public", s)
		}
	}
	for _, s := range []string{
		"64:ff9b::8.8.8.8", "64:ff9b::140.82.121.33", "2a00:1098:2c:1::140.82.121.33", // public ones behind NAT64
		"2606:4700::6810:84e5", "2606:4700:10::6816:1b4", "2606:50c0:8000::153", "2a04:4e42:200::347", "2a04:4e42::81d", "2a00:1450:4001:82a::200e",
		"2001:4860:4860::8888", "2620:fe::fe", "2620:1ec:21::14", "2600:1f18:2148:bc00:41d8:2b6b:9f84:ac81", "2600:1901:0:bbc4::",
		"2600:9000:2202:6800:18:30b3:e400:93a1", "2603:1030:7::1", "2a01:4f8:c0a8:1::2", "2a01:4f8:a00:7f00::1", "2a00:1098:2:a::1", "2a00:1098:2:7f:1::1",
		"2a03:2880:f12f:83:face:b00c:0:25de", "2a00:1098:2:3:a8bb:ccff:fedd:eeff", "2001:67c:1560:8003::c7", "2a05:d018:a00:100:1c2b:3d4e:5f60:718",
		"2a00:1098:2:3:200:5efe:808:808",
	} {
		if ip := netip.MustParseAddr(s); !public(ip) {
			t.Errorf("%s does not count as public", s)
		}
	}
	for _, s := range []string{
		"2a00:1098:a9fe:a9fe::", "2a00:1098:2:a9fe:a9:fe00::", "2a00:1098:2:3:a9:fea9:fe00:0", "2a00:1098:2c:1::a9fe:a9fe", "64:ff9b::a9fe:a9fe",
		"2a00:1098:2:3:0:5efe:a9fe:a9fe", "64:ff9b:1::6464:64c8",
	} {
		if ip := netip.MustParseAddr(s); !isMetadata(ip) {
			t.Errorf("%s does not count as a metadata service's", s)
		}
	}
}

// TestWhatAllowAddressesLetsIn: what it says, and nothing that only this machine
// reaches unless it says exactly that.
func TestWhatAllowAddressesLetsIn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		allow string
		to    string
		ok    bool
	}{
		"fake IPs":                         {"198.18.0.0/15", "198.19.255.254", true},
		"fake IPs, mapped":                 {"198.18.0.0/15", "::ffff:198.18.0.1", true},
		"fake IPs, IPv6":                   {"fc00::/18", "fc00::42", true},
		"others":                           {"198.18.0.0/15", "10.0.0.1", false},
		"one host":                         {"10.0.0.7/32", "10.0.0.7", true},
		"the host beside":                  {"10.0.0.7/32", "10.0.0.8", false},
		"a network's NAT64":                {"2a00:1098:2c:1::/96", "2a00:1098:2c:1::10.0.0.1", true},
		"all: private":                     {"0.0.0.0/0", "192.168.1.1", true},
		"all: loopback":                    {"0.0.0.0/0", "127.0.0.1", false},
		"all: loopback, mapped":            {"0.0.0.0/0", "::ffff:127.0.0.1", false},
		"all: this network":                {"0.0.0.0/0", "0.0.0.0", false},
		"all: links":                       {"0.0.0.0/0", "169.254.1.1", false},
		"all: metadata":                    {"0.0.0.0/0", "169.254.169.254", false},
		"all: metadata elsewhere":          {"0.0.0.0/0", "100.100.100.200", false},
		"all: multicast":                   {"0.0.0.0/0", "239.1.1.1", false},
		"all: broadcast":                   {"0.0.0.0/0", "255.255.255.255", false},
		"half: loopback":                   {"64.0.0.0/2", "127.0.0.1", false},
		"all IPv6: private":                {"::/0", "fd12::1", true},
		"all IPv6: loopback":               {"::/0", "::1", false},
		"all IPv6: unspecified":            {"::/0", "::", false},
		"all IPv6: links":                  {"::/0", "fe80::1%eth0", false},
		"all IPv6: metadata":               {"::/0", "fd00:ec2::254", false},
		"all IPv6: wrapped metadata":       {"::/0", "2a00:1098:2c:1::a9fe:a9fe", false},
		"all IPv6: multicast":              {"::/0", "ff02::1", false},
		"loopback itself":                  {"127.0.0.0/8", "127.0.0.1", true},
		"part of loopback":                 {"127.5.0.0/16", "127.5.0.1", true},
		"links themselves":                 {"169.254.0.0/16", "169.254.1.1", true},
		"links themselves: metadata":       {"169.254.0.0/16", "169.254.169.254", false},
		"metadata itself":                  {"169.254.169.254/32", "169.254.169.254", false},
		"the wire server itself":           {"168.63.129.16/32", "168.63.129.16", false},
		"a public network changes nothing": {"8.8.8.0/24", "1.1.1.1", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for configured, port := range map[bool]string{false: "443", true: "8443"} {
				g := newGuard(newHome("reg.example.com", false), Registry{Configured: configured, AllowAddresses: prefixes(c.allow)})
				to := netip.MustParseAddr(c.to)
				at := "[" + c.to + "]:" + port
				if to.Is4() {
					at = c.to + ":" + port
				}
				if err := g.control("cdn.example.net:"+port)(t.Context(), "tcp", at, nil); (err == nil) != c.ok {
					t.Errorf("configured %v: %v", configured, err)
				}
			}
		})
	}
}

// TestNoRegistryLeadsToThisNode, whatever is allowed.
func TestNoRegistryLeadsToThisNode(t *testing.T) {
	t.Parallel()
	allow := prefixes("0.0.0.0/0 127.0.0.0/8 ::1/128 10.0.0.7/32")
	for self, to := range map[string]map[string]bool{
		"127.0.0.1:8443": {"127.0.0.1:8443": false, "127.0.0.2:8443": true, "127.0.0.1:8444": true, "[::ffff:127.0.0.1]:8443": false},
		"0.0.0.0:8443":   {"127.0.0.1:8443": false, "127.9.9.9:8443": false, "[::1]:8443": false, "10.0.0.7:8443": true, "127.0.0.1:443": true},
		"10.0.0.7:8443":  {"10.0.0.7:8443": false, "127.0.0.1:8443": true},
	} {
		g := newGuard(newHome("reg.example.com", false), Registry{Configured: true, AllowAddresses: allow, Self: []netip.AddrPort{netip.MustParseAddrPort(self)}})
		for at, ok := range to {
			if err := g.control("cdn.example.net:8443")(t.Context(), "tcp", at, nil); (err == nil) != ok {
				t.Errorf("a node at %s leads to %s: %v", self, at, err)
			}
		}
	}
}

// TestARefusedAddressPasses: what a name means now it need not mean the next moment, so
// nothing is final. The node names host, address and remedy to operators.
func TestARefusedAddressPasses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg    Registry
		means  string
		reason string // for clients
		inside string // for operators
	}{
		"fake IP of a stranger":        {Registry{}, "198.18.0.9", noPublicAddress, "198.18.0.9: it looks like the fake-IP DNS of a local proxy: set allow_addresses: [198.18.0.0/15] at the top of the config"},
		"fake IPv6 of a stranger":      {Registry{}, "fc00::9", noPublicAddress, "set allow_addresses: [fc00::/18] at the top"},
		"a stranger inside":            {Registry{}, "10.1.2.3", noPublicAddress, "10.1.2.3: if it is meant, add its network to allow_addresses at the top of the config"},
		"metadata of a stranger":       {Registry{}, "169.254.169.254", noPublicAddress, "cloud metadata addresses are never contacted: 169.254.169.254"},
		"metadata of one's own":        {Registry{Configured: true}, "169.254.169.254", "cloud metadata addresses are never contacted", "nothing lets this address in"},
		"a CDN of one's own registry":  {Registry{Configured: true}, "10.1.2.3", "the address is not public", "add its network to allow_addresses for registry reg.example.com"},
		"a CDN at a fake IP":           {Registry{Configured: true}, "198.18.3.4", "the address is not public", "set allow_addresses: [198.18.0.0/15] for registry reg.example.com"},
		"a CDN behind NAT64 is inside": {Registry{Configured: true}, "2a00:1098:2c:1::a00:1", "the address is not public", "2a00:1098:2c:1::a00:1: if it is meant"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := &terrain{names: means(c.means), places: refuses(nil)}
				c.cfg.Host = "reg.example.com"
				r := newClientFor(t, c.cfg)
				n.at(r)
				to := "https://reg.example.com/"
				if c.cfg.Configured && c.means != "169.254.169.254" {
					to = "https://cdn.example.net/"
				}
				for range 2 {
					_, err := r.net.roundTrip(ask{method: "GET"}.at(t.Context(), mustURL(t, to), ""))
					f, ok := errors.AsType[*failure](err)
					if !ok {
						t.Fatalf("%v", err)
					}
					e := wantError(t, f.cause, oci.Unavailable, c.inside[:0])
					if e.Reason != c.reason || !e.Passing() || e.Authoritative() || !e.OtherNodeMayHelp() || !e.Unreached {
						t.Errorf("%+v, want %q, which passes", e, c.reason)
					}
					if wantError(t, &oci.Error{Kind: e.Kind, Reason: e.Inside}, e.Kind, c.inside).Inside != "" {
						t.Error("no text for operators")
					}
					time.Sleep(time.Second) // in the bubble's time
				}
				if d := n.dials.Load(); d != 2 { // the second one is a probe
					t.Errorf("%d dials", d)
				}
			})
		})
	}
}
