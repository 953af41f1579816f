package mirrors

import (
	"testing"
	"testing/synctest"
	"time"
)

// A liar does not count as well because of an answer that had begun before it was found out. It is tried
// again after its rest.
func TestALiarIsNotMadeGoodByAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &place{host: "mirror.example"}
		p.lied()
		p.answered(time.Millisecond)
		if p.describe().Well || p.due(true) {
			t.Error("a liar counts as well, or is probed, in its rest")
		}
		<-time.After(liarsRest + 1)
		if !p.due(true) {
			t.Error("a liar is not tried again after its rest")
		}
		p.answered(time.Millisecond)
		if !p.describe().Well {
			t.Error("a place that answers after its rest does not count as well")
		}
	})
}
