package transfer_test

import (
	"testing"
	"time"

	"oci-proxy/transfer"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/upstream"
)

// TestDeadlinesAreInOrder checks that the deadline of a part ends before the deadline of
// the whole, so that the error tells the part's reason.
func TestDeadlinesAreInOrder(t *testing.T) {
	t.Parallel()
	for _, pair := range []struct {
		less, more time.Duration
		why        string
	}{
		{transfer.Stall, upstream.Within, "a download that stands still is tried again before its answer is given up"},
		{mesh.DripFor, upstream.Within, "a node that may ask the registry does so before it has to give up"},
		{upstream.Within, transfer.AnswerWithin, "the registry's own failure is told, not that it took too long"},
		{transfer.SizeWithin, transfer.AnswerWithin - transfer.Stall, "a range whose size nobody tells leaves time for the whole"},
		{transfer.AnswerWithin, transfer.Promised, "a client is told why before the time is over that the documents promise"},
	} {
		if pair.less >= pair.more {
			t.Errorf("%v is not less than %v: %s", pair.less, pair.more, pair.why)
		}
	}
}
