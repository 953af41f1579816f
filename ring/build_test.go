package ring

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// The ring has its own table and its own circle. Both must equal the library's.
func TestOwnersAreTheLibrarys(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 9, 20} {
		members := mesh(n, 0, uint64(n))
		r := must(t, members)
		units := split(r.members)
		lib := build(units)
		if got, want := limit(len(units)), int(lib.AverageLoad()); got != want {
			t.Errorf("%d units: the bound is %d, the library's is %d", len(units), got, want)
		}
		for _, key := range digests(2000) {
			name, _, _ := strings.Cut(lib.LocateKey([]byte(key)).String(), string(separator))
			if got := r.Owner(key).ID; got != name {
				t.Fatalf("%d members: %s belongs to %s, but by the library to %s", n, key, got, name)
			}
		}

		points, err := circle(units)
		if err != nil {
			t.Fatal(err)
		}
		w := walk{units: units, points: points, taken: make([]int, len(units)), room: limit(len(units))}
		for p := range partitions {
			i := w.start(p) % len(points)
			for w.taken[points[i].unit] >= w.room {
				i = (i + 1) % len(points)
			}
			u := points[i].unit
			if want := lib.GetPartitionOwner(p).String(); units[u].name != want {
				t.Fatalf("%d members: the walk from partition %d finds %s, the library %s", n, p, units[u].name, want)
			}
			w.taken[u]++
		}
	}
}

// A unit that is held twice makes the library panic when it leaves. No set of
// members makes such units, but another panic might have another cause.
func TestAPanicInTheLibraryIsAnErrorAndTheNextRingIsRight(t *testing.T) {
	t.Parallel()
	members := nodes(60, 1, 14)
	units := split(members)
	var b builder
	if _, err := b.assign(append(units[:60:60], units[59])); err != nil {
		t.Fatal(err)
	}
	if _, err := b.assign(units[:59]); !errors.Is(err, errLibrary) {
		t.Fatalf("error %v: the library no longer panics, so this test needs another way to make it panic", err)
	}
	got, err := b.assign(units[:59])
	if err != nil {
		t.Fatal(err)
	}
	want, err := new(builder).assign(units[:59])
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("after the panic the table is different (error %v)", err)
	}
}

func TestUnitsThatMeetOnTheCircleAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := circle([]unit{{"a#0", 0}, {"b#0", 1}, {"a#0", 2}}); !errors.Is(err, ErrMembers) {
		t.Errorf("error %v", err)
	}
}

// The library's version is in the hash, so nodes with different versions know
// that they disagree.
func TestTheLibrarysVersionIsTheHashes(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(algorithm, ",")
	want := "github.com/buraksezer/" + name
	for line := range strings.Lines(string(mod)) {
		if line = strings.TrimSpace(line); line == want || strings.HasPrefix(line, want+" //") {
			return
		}
	}
	t.Errorf("go.mod does not require %s: for another version, change the constant algorithm", want)
}
