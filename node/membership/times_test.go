package membership

import (
	"slices"
	"testing"
	"time"
)

func TestTimesAreInOrder(t *testing.T) {
	t.Parallel()
	for _, order := range []struct {
		shorter, longer time.Duration
		why             string
	}{
		{probeTimeout, probeInterval, "a probe that times out leaves time in its interval to ask other members"},
		{gossipInterval, announceTime, "a change must have several rounds of gossip before announce gives up"},
		{debounce, gatherMost, "more members take longer"},
		{gatherMost, announceTime, "the views have the change by then"},
		{pushPullInterval, defaultGrace, "a newcomer must hear of a member that is down while it keeps its place, or their rings differ"},
		{pushPullInterval, contestedFor, "a conflict of names must be seen again while it counts, or Health flickers"},
		{foundDead(10), twiceFor, "after a restart, the last boot must be found dead before it counts as a duplicate"},
		{foundDead(10), defaultGrace, "a member found dead must keep its place for a while, or a restart moves keys"},
		{lookAgain, twiceFor, "twins must have looked at each other before Health reports them"},
		{pushPullInterval, clashFor, "two nodes with one title must hear of each other while it is told"},
		{tryAgain, toldFor, "an address that does not answer must be tried again while it is told"},
		{pushPullInterval, toldFor, "a node must hear that its address does not answer while it is told"},
		{gossipToDead, udpAfter, "a wrong address is told before lost packets are logged"},
		{firstPause, lastPause, "the pause between tries grows"},
		{lastPause, gossipToDead, "a lost member must be sought before memberlist forgets it"},
		{lookupTime + streamTimeout, aloneFor, "a seed must be tried at least once before the node reports that it is alone"},
		{defaultGrace, remember, "a member that lost its place must still be sought"},
		{renewed + saveEvery, remember, "a file that a crash leaves must not make members that lived look forgotten"},
	} {
		if order.shorter >= order.longer {
			t.Errorf("%v is not shorter than %v: %s", order.shorter, order.longer, order.why)
		}
	}
	if !slices.IsSorted(mingling) {
		t.Errorf("mingling must be in order, is %v", mingling)
	}
}
