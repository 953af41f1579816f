package membership

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

func clusterID(id string) func(*Config) { return func(c *Config) { c.Cluster = id } }

// Two clusters with one secret never meet, whoever finds an address of the other.
func TestClustersWithDifferentIDsNeverMeet(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{{"", "prod"}, {"prod", "test"}, {"a", "A"}, {"oci-proxy", "oci-proxy.2"}, {strings.Repeat("x", 63) + "1", strings.Repeat("x", 63) + "2"}} {
		t.Run(fmt.Sprint(pair), func(t *testing.T) {
			t.Parallel()
			bubble(t, 1, func(s *sim) {
				all := seeds(ip(0)+":7946", ip(1)+":7946", ip(2)+":7946", ip(3)+":7946")
				for i := range 4 {
					s.start(i, all, clusterID(pair[i/2]))
				}
				s.pass(time.Minute)
				for i, m := range s.nodes {
					if n := len(m.View().Members); n != 2 {
						s.Errorf("node %d sees %d members, want 2", i, n)
					}
					if !s.logs[i].Has("it belongs to another cluster") {
						s.Errorf("node %d does not say why: %s", i, s.logs[i])
					}
				}
				// A node of the one gets the address of a member of the other.
				s.kill(1)
				s.pass(20 * time.Second)
				s.start(1, all, clusterID(pair[1]))
				s.reach(15*time.Second, "it joins its own", func() bool { return up(s.nodes[1].View()) == 3 && up(s.nodes[2].View()) == 3 })
				s.pass(30 * time.Second)
				if n := up(s.nodes[0].View()); n != 1 {
					s.Errorf("the other cluster sees %d members, want 1", n)
				}
			})
		})
	}
}

// Nodes of versions before cluster.id have the keys and the label of the default id.
func TestTheDefaultIDIsThatOfOlderVersions(t *testing.T) {
	t.Parallel()
	if label(defaultCluster) != "oci-proxy" {
		t.Errorf("the label is %q", label(defaultCluster))
	}
	for purpose, want := range oldKeys {
		key := derive(defaultCluster, []string{secret}, purpose)[0]
		if other := derive("other", []string{secret}, purpose)[0]; bytes.Equal(key, other) {
			t.Errorf("%s: two ids have one key", purpose)
		}
		if fmt.Sprintf("%x", key[:8]) != want {
			t.Errorf("%s: the key is %x…, and was %s… before", purpose, key[:8], want)
		}
	}
}

// oldKeys begin the keys that the versions before cluster.id made of the test's secret.
var oldKeys = map[string]string{forGossip: "9b2cff7161712ab4", forPeers: "23c92fe7028d10b2"}
