package transfer_test

import (
	"fmt"
	"io"
	"testing"

	"oci-proxy/transfer/oci"
)

func TestRegistriesBeyondManyAreCountedTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	send := func(registry string) {
		if _, err := r.Sending(io.Discard, registry, oci.Miss).Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10_000 {
		send(fmt.Sprintf("r%d.example.com", i))
	}
	send("r0.example.com")
	all := r.Counters()
	var sum int64
	for _, c := range all {
		sum += c.MissBytes.Load()
	}
	if len(all) > 513 || sum != 10_001 || all["r0.example.com"].MissBytes.Load() != 2 {
		t.Errorf("%d registries, %d bytes", len(all), sum)
	}
}
