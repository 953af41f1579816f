package main

import "testing"

// A small heap is collected after 4 MiB of garbage, a large one at two fifths of what is in use, and
// none is larger than either asks for: the runtime counts from 4 MiB.
func TestPercentOfGarbage(t *testing.T) {
	t.Parallel()
	for used, want := range map[uint64]int{
		0: 250, 1 << 20: 250, 3 << 20: 133, 4 << 20: 100, 8 << 20: 50, 10 << 20: 40, 16 << 20: 40, 20 << 20: 40, 1 << 30: 40, 1 << 50: 40,
	} {
		if got := percentOf(used); got != want {
			t.Errorf("%d bytes in use: %d %%, want %d", used, got, want)
		}
	}
}
