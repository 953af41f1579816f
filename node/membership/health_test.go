package membership

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"oci-proxy/node/health"
)

// said waits until the node's health says all of the texts, and returns how long that
// took.
func (s *sim) said(within time.Duration, i int, texts ...string) {
	s.Helper()
	took := s.reach(within, strings.Join(texts, ", "), func() bool {
		err := wrongWith(s.nodes[i])
		return err != nil && !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(err.Error(), text) })
	})
	s.Logf("node %d says after %v: %v", i, took, wrongWith(s.nodes[i]))
}

// coded waits until what is wrong with a node has these codes alone. A seed that had not started
// yet is asked again: each round asks one of the seeds that were not met, in turn.
func (s *sim) coded(i int, want ...health.Code) {
	s.Helper()
	s.reach(time.Minute, fmt.Sprintf("node %d has the codes %q alone", i, want), func() bool {
		return slices.Equal(health.CodesOf(s.nodes[i].Health()), want)
	})
}

// well checks that the nodes are healthy for a minute.
func (s *sim) well(nodes ...int) {
	s.Helper()
	for range 60 {
		for _, i := range nodes {
			if err := wrongWith(s.nodes[i]); err != nil {
				s.Fatalf("health of node %d: %v", i, err)
			}
		}
		s.pass(time.Second)
	}
}

// Two pairs know each other as seeds, but can't meet.
func TestASeedThatWasNeverMetIsNamed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		other func(*Config) // what makes the second pair different
		why   string
	}{
		"another secret":       {secrets(newSecret), "it has a different secret"},
		"another cluster's id": {clusterID("other"), "it belongs to another cluster"},
		"plain gossip": {func(c *Config) {
			c.Secrets = nil
			c.BindAddr = "127" + strings.TrimPrefix(c.BindAddr, "10")
			c.Seeds = []string{"127.0.0.3:7946", "127.0.0.4:7946", "10.0.0.1:7946"}
		}, "it has no secret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 1, func(s *sim) {
				all := []string{ip(0) + ":7946", ip(1) + ":7946", ip(2) + ":7946", ip(3) + ":7946"}
				if name == "plain gossip" {
					all[2], all[3] = "127.0.0.3:7946", "127.0.0.4:7946"
				}
				for i := range 4 {
					s.start(i, seeds(all...), func(c *Config) {
						if i >= 2 {
							test.other(c)
						}
					})
				}
				s.said(30*time.Second, 0, "the seed "+all[2]+" was never met", "the seed "+all[3]+" was never met", test.why)
				s.coded(0, health.Secret)
				s.said(30*time.Second, 1, "the seed "+all[2]+" was never met", test.why)
				if name != "plain gossip" {
					s.said(30*time.Second, 2, "the seed "+all[0]+" was never met", test.why)
					s.said(30*time.Second, 3, "the seed "+all[0]+" was never met", test.why)
				}
			})
		})
	}
}

// A pair whose other seeds are no names, or nobody answers there.
func TestSeedsThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		dns := &zone{names: map[string][]string{"pair": {ip(0), ip(1)}, "self": {ip(0)}, "stale": {ip(50)}, "cut": {ip(60)}}}
		resolve := func(ctx context.Context, host string) ([]netip.Addr, error) {
			if host == "none" {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			}
			return dns.resolve(ctx, host)
		}
		with := func(c *Config) {
			c.Seeds, c.Resolve = []string{"pair:7946", "none:7946", "self:7946", "stale:7946", "cut:7946"}, resolve
		}
		s.net.Cut([]string{ip(0), ip(1), ip(50)}, []string{ip(60)})
		s.start(0, with)
		s.start(1, with)
		s.said(60*time.Second, 0, "the seed none:7946 was never met: ", "no such host", "the seed stale:7946 was never met: "+ip(50)+":7946: connection refused", "the seed cut:7946 was never met: "+ip(60)+":7946: no answer")
		if err := wrongWith(s.nodes[0]).Error(); strings.Contains(err, "pair:") || strings.Contains(err, "self:") {
			s.Errorf("a seed that was met, or is this node, is named: %s", err)
		}
		s.coded(0, health.Seed)
		s.said(60*time.Second, 1, "none:7946", "stale:7946", "cut:7946")

		// Each is met in the end; then it may go.
		for _, name := range []string{"none", "cut"} {
			dns.set(name, ip(50))
		}
		s.start(50, seeds())
		s.reach(2*time.Minute, "only the name that does not resolve is named", func() bool {
			err := wrongWith(s.nodes[0])
			return err != nil && !strings.Contains(err.Error(), "stale") && !strings.Contains(err.Error(), "cut:") && strings.Contains(err.Error(), "none:")
		})
		s.kill(50)
		s.pass(10 * time.Minute)
		if err := wrongWith(s.nodes[0]); err == nil || strings.Contains(err.Error(), "stale") {
			s.Errorf("health %v", err)
		}
	})
}

// Met once is enough: the member may leave for good, die, or move.
func TestASeedIsMetOnce(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		all := seeds(ip(0)+":7946", ip(1)+":7946", ip(2)+":7946", ip(3)+":7946")
		for i := range 4 {
			s.start(i, all)
		}
		s.reach(10*time.Second, "each node sees all", s.whole)
		s.well(0, 1, 2, 3)
		s.leave(3)
		s.kill(2)
		s.start(30, all)
		s.pass(15 * time.Second)
		s.well(0, 1)
		s.pass(10 * time.Minute)
		s.well(0, 1)
		s.said(time.Second, 30, "the seed "+ip(2)+":7946 was never met", "the seed "+ip(3)+":7946 was never met")
	})
}

// A seed is a balancer's address, at which no member is known.
func TestASeedBehindAnotherAddress(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		s.form(2)
		proxy := s.net.Host(ip(70) + ":7946")
		go func() { // passes streams on to node 0
			for {
				select {
				case here := <-proxy.StreamCh():
					there, err := proxy.DialTimeout(ip(0)+":7946", time.Second)
					if err != nil {
						_ = here.Close()
						continue
					}
					pipe := func(to, from net.Conn) {
						b := make([]byte, 32<<10)
						for {
							n, err := from.Read(b)
							if n > 0 {
								_, _ = to.Write(b[:n])
							}
							if err != nil {
								_ = to.Close()
								return
							}
						}
					}
					go pipe(there, here)
					go pipe(here, there)
				case <-s.Context().Done():
					return
				}
			}
		}()
		s.start(2, seeds(ip(70)+":7946"))
		s.reach(5*time.Second, "each node sees all", s.whole)
		s.pass(20 * time.Second)
		s.well(2)
		_ = proxy.Shutdown()
	})
}

// A node advertises an address at which it can't be reached. The others tell it.
func TestAWrongAdvertiseIsTold(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		address string
		why     string
		prepare func(s *sim)
	}{
		"nobody is there":          {"10.0.9.9", "connection refused", nil},
		"packets are swallowed":    {"10.0.9.9", "no answer", func(s *sim) { s.net.Cut([]string{ip(0), ip(1), ip(2), ip(3)}, []string{"10.0.9.9"}) }},
		"another member's address": {ip(1), "another member answers there", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 1, func(s *sim) {
				s.form(3)
				if test.prepare != nil {
					test.prepare(s)
				}
				s.pass(20 * time.Second)
				wrong := s.start(3, func(c *Config) { c.Advertise = test.address })
				s.said(90*time.Second, 3, "other members can't reach this node at "+test.address+":7946", test.why, "set cluster.advertise")
				s.coded(3, health.Address)
				for range 120 {
					s.pass(time.Second)
					if wrongWith(wrong) == nil {
						s.Fatal("it says so no more")
					}
				}
				if !s.logs[3].Has("level=WARN msg=\"this node's address does not answer") || s.logs[3].Has("over UDP") {
					s.Errorf("its log: %s", s.logs[3])
				}
				for i := range 3 {
					if err := wrongWith(s.nodes[i]); err != nil {
						s.Errorf("health of node %d: %v", i, err)
					}
				}
				s.kill(3)
				s.start(3)
				s.reach(3*time.Minute, "each node sees all", s.whole)
				s.well(0, 1, 2, 3)
			})
		})
	}
}

// A node that was cut off or hung for a while is found dead too. It is told nothing.
func TestANodeThatWasCutOffIsToldNothing(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		s.form(5)
		for range 3 {
			s.net.Hang(ip(4), true)
			s.pass(20 * time.Second)
			s.net.Hang(ip(4), false)
			s.reach(20*time.Second, "each node sees all", s.whole)
			s.net.Cut([]string{ip(0), ip(1), ip(2)}, []string{ip(3), ip(4)})
			s.pass(30 * time.Second)
			s.net.Cut()
			s.reach(20*time.Second, "each node sees all", s.whole)
		}
		s.well(0, 1, 2, 3, 4)
	})
}
