package cluster

import (
	"strings"
	"testing"
	"time"

	"oci-proxy/node/health"
)

// An upgrade takes a while, and is no trouble meanwhile.
func TestVersionsThatDifferAreToldAfterAWhile(t *testing.T) {
	t.Parallel()
	now := time.Now()
	long, short := now.Add(-2*skewTime), now.Add(-skewTime/2)
	for name, c := range map[string]struct {
		born, since time.Time // of this node, and of the others
		versions    []string  // of the others
		down        bool
		want        string // "": nothing
	}{
		"all the same":            {long, long, []string{"v2", "v2"}, false, ""},
		"one was forgotten":       {long, long, []string{"v1", "v2"}, false, "than this node (v2): b (v1): finish"},
		"this node was upgraded":  {short, long, []string{"v1", "v1"}, false, ""},
		"the others were":         {long, short, []string{"v3", "v3"}, false, ""},
		"one that is down":        {long, long, []string{"v1"}, true, ""},
		"many":                    {long, long, []string{"v1", "v1", "v1", "v1", "v1", "v1"}, false, "and 2 more"},
		"a node on its own again": {long, long, nil, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := meshOf(c.since, []string{"b", "c", "d", "e", "f", "g"}[:len(c.versions)]...)
			v.Self.Version = "v2"
			for i, version := range c.versions {
				v.Members[i+1].Version, v.Members[i+1].Up = version, !c.down
			}
			err := skewed(v, c.born, now, skewTime)
			if (err != nil) != (c.want != "") || err != nil && (!strings.Contains(err.Error(), c.want) || health.CodeOf(err) != health.VersionSkew) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
