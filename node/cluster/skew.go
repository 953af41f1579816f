package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"oci-proxy/node/health"
	"oci-proxy/node/membership"
)

// skewed returns an error if live members have run another version than this node for a
// while: an upgrade takes its time, but one that was forgotten half way is no state to stay in.
// born is when this node started.
func skewed(v *membership.View, born, now time.Time, most time.Duration) error {
	var others []string
	for i := range v.Members {
		m := &v.Members[i]
		if m.ID == v.Self.ID || !m.Up || m.Version == v.Self.Version || now.Sub(m.Since) < most || now.Sub(born) < most {
			continue
		}
		others = append(others, fmt.Sprintf("%s (%s)", m.Name, m.Version))
	}
	if len(others) == 0 {
		return nil
	}
	slices.Sort(others)
	if n := len(others) - maxNamed; n > 0 {
		others = append(others[:maxNamed], fmt.Sprintf("and %d more", n))
	}
	return health.Because(health.VersionSkew, fmt.Errorf("members run other versions than this node (%s): %s: finish the upgrade", v.Self.Version, strings.Join(others, ", ")))
}
