package membership

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
)

// open starts a node on a real socket of loopback.
func open(t *testing.T, change ...func(*Config)) *Membership {
	t.Helper()
	cfg := Config{Name: "n", BindAddr: "127.0.0.1:0", PeerAddr: "127.0.0.1:7947", Weight: 1, Secrets: []string{secret}}
	for _, c := range change {
		c(&cfg)
	}
	m, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Kill(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// sees waits until the node sees n members up.
func sees(t *testing.T, m *Membership, n int) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		changed := m.Changed()
		if up(m.View()) == n {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%d members are up, want %d", up(m.View()), n)
		}
	}
}

func TestThreeNodesFormOnSockets(t *testing.T) {
	t.Parallel()
	a := open(t)
	b := open(t, seeds(a.at.gossip), func(c *Config) { c.Dir = t.TempDir() })
	c := open(t, seeds("localhost:1", a.at.gossip))
	for _, m := range []*Membership{a, b, c} {
		sees(t, m, 3)
		if hash := m.View().Ring.Hash(); hash != a.View().Ring.Hash() {
			t.Error("the nodes have different rings")
		}
	}
	b.Draining(t.Context())
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
	sees(t, a, 2)
	sees(t, c, 2)
	if err := b.Close(t.Context()); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	b.Restarting(t.Context()) // does nothing after Close
}

// Packets and streams of strangers neither crash a node nor make a member. One
// packet of 54 bytes crashed any memberlist before v0.7.0 that had no key.
func TestGarbageKillsNobodyAndAdmitsNobody(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){"with a secret": secrets(secret), "without": secrets()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := open(t, change)
			b := open(t, change, seeds(a.at.gossip))
			sees(t, a, 2)
			packets, err := net.Dial("udp", a.at.gossip)
			if err != nil {
				t.Fatal(err)
			}
			defer packets.Close()
			head := append([]byte{244, byte(len(program))}, program...) // memberlist's label header
			for i := range 2000 {
				b := make([]byte, 1+i%200)
				rand.Read(b)
				b[0] = byte(i % 16) // a message's type
				if i%2 == 0 {
					b = append(head, b...)
				}
				packets.Write(b)
				if i%50 != 0 {
					continue
				}
				if stream, err := net.Dial("tcp", a.at.gossip); err == nil {
					stream.Write(b)
					stream.Close()
				}
			}
			c := open(t, change, seeds(a.at.gossip))
			for _, m := range []*Membership{a, b, c} {
				sees(t, m, 3)
			}
		})
	}
}

func TestASeedThatStartsLaterIsFound(t *testing.T) {
	t.Parallel()
	address := testkit.FreeAddr(t, "127.0.0.1")
	early := open(t, seeds(address))
	late := open(t, func(c *Config) { c.BindAddr = address })
	sees(t, early, 2)
	sees(t, late, 2)
}

func TestOpenRefusesABadConfig(t *testing.T) {
	t.Parallel()
	taken := open(t)
	for name, test := range map[string]struct {
		change func(*Config)
		says   string
	}{
		"an address in use":     {func(c *Config) { c.BindAddr = taken.at.gossip }, "address already in use"},
		"no port":               {func(c *Config) { c.BindAddr = "127.0.0.1" }, "the gossip address"},
		"a bad port":            {func(c *Config) { c.BindAddr = "127.0.0.1:x" }, "the gossip address"},
		"no peer port":          {func(c *Config) { c.PeerAddr = "127.0.0.1:0" }, "the peer address"},
		"a host nobody knows":   {func(c *Config) { c.Advertise = "nowhere" }, "resolving"},
		"all addresses":         {func(c *Config) { c.Advertise = "0.0.0.0" }, "all addresses; name one"},
		"a short secret":        {secrets("short"), "it needs at least 16"},
		"no secret":             {func(c *Config) { c.Secrets, c.BindAddr, c.Advertise = nil, "0.0.0.0:0", "127.0.0.1" }, "on loopback only"},
		"no secret, advertised": {func(c *Config) { c.Secrets, c.Advertise = nil, "10.0.0.1" }, "on loopback only"},
		"a bad seed":            {seeds("nowhere"), "the seed"},
		"no weight":             {func(c *Config) { c.Weight = 0 }, "weight"},
		"a long name":           {func(c *Config) { c.Name = strings.Repeat("n", 65) }, "would refuse this node"},
		"a name with a newline": {func(c *Config) { c.Name = "a\nb" }, "would refuse this node"},
		"all too long": {func(c *Config) {
			c.Name, c.Zone, c.Version = strings.Repeat(`"`, 64), strings.Repeat(`"`, 64), strings.Repeat(`"`, 64)
			c.PeerAddr = strings.Repeat("a", 100) + ":1"
		}, "more than 480"},
	} {
		cfg := Config{
			BindAddr: "127.0.0.1:0", PeerAddr: "127.0.0.1:7947", Weight: 1, Secrets: []string{secret},
			Resolve: func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("not known") },
		}
		test.change(&cfg)
		m, err := Open(cfg)
		if err == nil {
			m.Kill()
			t.Errorf("%s: Open accepted it", name)
		} else if !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAdvertisedAddresses(t *testing.T) {
	t.Parallel()
	resolve := names(map[string][]string{"me": {"fd00::1", "10.1.2.3"}, "six": {"::ffff:10.1.1.1"}})
	for _, test := range []struct{ bind, advertise, peer, gossipHost, wantPeer string }{
		{"10.0.0.1:7946", "", ":7947", "10.0.0.1", "10.0.0.1:7947"},
		{"10.0.0.1:7946", "me", "0.0.0.0:7947", "10.1.2.3", "10.1.2.3:7947"},
		{":7946", "fd00::7", "[::]:7947", "fd00::7", "[fd00::7]:7947"},
		{"[::]:7946", "six", "peer.example:7947", "10.1.1.1", "peer.example:7947"},
	} {
		cfg := Config{BindAddr: test.bind, Advertise: test.advertise, PeerAddr: test.peer, Resolve: resolve}
		e, err := place(&cfg)
		if err != nil || e.advertise.String() != test.gossipHost || e.peer != test.wantPeer {
			t.Errorf("%v: got %v, %v", test, e, err)
		}
	}
	addrs := func(all ...string) (ips []netip.Addr) {
		for _, a := range all {
			ips = append(ips, netip.MustParseAddr(a))
		}
		return ips
	}
	for want, all := range map[string][]netip.Addr{
		"192.168.1.1": addrs("127.0.0.1", "8.8.8.8", "fd00::1", "192.168.1.1", "10.0.0.1"),
		"fd00::1":     addrs("127.0.0.1", "8.8.8.8", "fe80::1", "fd00::1"),
		"invalid IP":  addrs("127.0.0.1", "8.8.8.8", "::1"),
	} {
		if got, _ := firstPrivate(all); got.String() != want {
			t.Errorf("%v: got %v", all, got)
		}
	}
}
