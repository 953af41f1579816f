package mirrors

import (
	"testing"
	"time"

	"oci-proxy/transfer/upstream"
)

// Each has to end before the next, so that what fails says why.
func TestTimesAreInOrder(t *testing.T) {
	t.Parallel()
	for _, order := range [][]time.Duration{
		{upstream.MeshPatience, leastPatience, newPatience, mostPatience, walkFor, within},
		{upstream.Patience, ownPatience, walkFor}, // who can't be dialled says so itself
		{crawlFor, stillFor, upstream.Within / 2},
		{within, upstream.Within + 1},
		{firstRest, lackFor, longestRest, liarsRest},
	} {
		for i := range len(order) - 1 {
			if order[i] >= order[i+1] {
				t.Errorf("%v is not less than %v", order[i], order[i+1])
			}
		}
	}
}
