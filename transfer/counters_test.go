package transfer

import (
	"strconv"
	"testing"
)

func TestCountersAreBounded(t *testing.T) {
	t.Parallel()
	f := &Fetcher{}
	f.Sent("mine.example.com", Hit, 0)
	for i := range 2 * maxCounted {
		f.Sent(strconv.Itoa(i)+".evil.net", Miss, 1)
	}
	f.Sent("mine.example.com", Hit, 5)
	all := f.Counters()
	if len(all) != maxCounted || all["mine.example.com"].HitBytes.Load() != 5 {
		t.Errorf("%d registries, %d bytes of ours", len(all), all["mine.example.com"].HitBytes.Load())
	}
}
