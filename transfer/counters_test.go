package transfer_test

import (
	"fmt"
	"testing"

	"oci-proxy/transfer/oci"
)

func TestRegistriesBeyondManyAreCountedTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	for i := range 10_000 {
		r.Sent(fmt.Sprintf("r%d.example.com", i), oci.Miss, 1)
	}
	r.Sent("r0.example.com", oci.Miss, 1)
	all := r.Counters()
	var sum int64
	for _, c := range all {
		sum += c.MissBytes.Load()
	}
	if len(all) > 513 || sum != 10_001 || all["r0.example.com"].MissBytes.Load() != 2 {
		t.Errorf("%d registries, %d bytes", len(all), sum)
	}
}
