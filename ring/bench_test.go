package ring

import (
	"strconv"
	"testing"
)

// sizes are the sizes of mesh for which we promise figures.
var sizes = []int{10, 100, 300}

func BenchmarkOwner(b *testing.B) {
	lookups(b, func(b *testing.B, r *Ring, keys []string) {
		for i := 0; b.Loop(); i++ {
			r.Owner(keys[i%len(keys)])
		}
	})
}

func BenchmarkOwners(b *testing.B) {
	lookups(b, func(b *testing.B, r *Ring, keys []string) {
		for i := 0; b.Loop(); i++ {
			r.Owners(keys[i%len(keys)])
		}
	})
}

// lookups looks up a thousand digests in turn: a single one would stay in the
// processor's nearest cache.
func lookups(b *testing.B, ask func(*testing.B, *Ring, []string)) {
	keys := digests(1024)
	for _, n := range sizes {
		members := nodes(n+1, 1, 1)
		r := mustNext(b, must(b, members[:n]), members)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			ask(b, r, keys)
		})
	}
}

func BenchmarkNew(b *testing.B) {
	for _, n := range append(sizes, 1000) {
		members := nodes(n, 1, 1)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				must(b, members)
			}
		})
	}
}

// BenchmarkNext lets a member join and leave.
func BenchmarkNext(b *testing.B) {
	for _, n := range append(sizes, 1000) {
		members := nodes(n+1, 1, 1)
		r := must(b, members[:n])
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				r = mustNext(b, r, members[:n+1-i%2])
			}
		})
	}
}

// BenchmarkNewFitted is BenchmarkNew for members of many sizes.
func BenchmarkNewFitted(b *testing.B) {
	for _, n := range append(sizes, 1000) {
		members := disks(n, 1, 5, 10, 20, 50, 100, 2048)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				must(b, members)
			}
		})
	}
}
