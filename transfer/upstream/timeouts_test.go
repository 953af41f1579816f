package upstream

import (
	"testing"
	"time"
)

// TestTimeoutsAreInOrder states which time-outs must be shorter than others, and why.
func TestTimeoutsAreInOrder(t *testing.T) {
	t.Parallel()
	const (
		facade = 39 * time.Second // of package transfer
		pause  = 2 * time.Second  // the longest between two tries
		tag    = 5 * time.Second  // until a cached tag is served
	)
	for _, c := range []struct {
		why         string
		less, limit time.Duration
	}{
		{"plain HTTP is tried in the same try as TLS", 2*probeTimeout + dialTimeout, headerTimeout},
		{"what nobody answers is not tried again", unreachableBudget, MeshPatience},
		{"a lost packet is sent again", 1100 * time.Millisecond, MeshPatience},
		{"the second resolver is asked in time", resolverTry + attemptDelay, MeshPatience},
		{"the third resolver is asked in time", 2*resolverTry + attemptDelay, Patience},
		{"a tag that is cached is served within 5 s", Patience + glance, tag},
		{"and in a mesh, where three nodes try", 3*MeshPatience + glance, tag},
		{"nobody waits for the end of a dial", Patience, dialTimeout},
		{"all addresses are tried before a dial ends", maxAddresses * attemptDelay, dialTimeout},
		{"a dead connection leaves time for another", lossTime + glance, Patience},
		{"dialling and TLS leave time in a try", dialTimeout + handshakeTimeout, tryTimeout},
		{"a Retry-After that is waited out leaves time for a try", longestRetryAfter, retryBudget},
		{"the header comes before the try ends", headerTimeout - 1, tryTimeout},
		{"a second request fits after one that hung", headerTimeout + handshakeTimeout, Within},
		{"a request that had to wait for its turn has time for a hop", turnWithin + dialTimeout, Within},
		{"another node hears that no turn came before it gives up", turnWithin, 30 * time.Second},
		{"a try may begin after one that hung", tryTimeout + pause, retryBudget},
		{"a token request ends before its callers leave", tryTimeout, Within},
		{"the last try has some time", retryBudget + Patience, Within},
		{"the facade hears of a failure before it gives up", Within, facade},
	} {
		if c.less >= c.limit {
			t.Errorf("%s: %v is not less than %v", c.why, c.less, c.limit)
		}
	}
}
