package directory

import (
	"slices"
	"testing"
)

// What a message covers travels. A member of an earlier version hears the same without it.
func TestCoverageTravels(t *testing.T) {
	t.Parallel()
	all := make([]uint16, maxPartitions)
	for p := range all {
		all[p] = uint16(p)
	}
	for _, some := range [][]uint16{{0}, {7, maxPartitions - 1}, all[:4], all[:5], all[:4*(MaxKeys-4)]} {
		m := &Message{Session: 1, Ring: ring, First: true, Last: true, Again: true, Held: []Key{10, 11}, Gone: []Key{12}, Covers: some}
		b := m.Encode()
		got, err := Parse(b)
		if err != nil || !got.Again || !slices.Equal(got.Covers, some) || !slices.Equal(got.Held, m.Held) || !slices.Equal(got.Gone, m.Gone) || len(b) > MaxMessage {
			t.Errorf("%d partitions: %d bytes, %+v, %v", len(some), len(b), got, err)
		}
		earlier, err := parseEarlier(b)
		if err != nil || earlier.Covers != nil || !slices.Equal(earlier.Held, m.Held) || len(earlier.Gone) != 1+words(len(some)) {
			t.Errorf("%d partitions, an earlier version: %+v, %v", len(some), earlier, err)
		}
		d := New(100)
		if d.Hear("a", earlier) || len(d.Names(10)) != 1 || !d.Knows(1, 0, ring, []string{"a"}) || d.Knows(1, some[0], ring+1, []string{"a"}) {
			t.Errorf("%d partitions, an earlier version: it does not hear the rest, or hears them", len(some))
		}
	}
	for name, bad := range map[string]*Message{
		"no partition of any ring": {Session: 1, Covers: []uint16{maxPartitions}},
		"too many":                 {Session: 1, Covers: append(slices.Clone(all[:4*MaxKeys]), 1)},
	} {
		if got, err := Parse(bad.Encode()); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	b := (&Message{Session: 1, Covers: all[:4]}).Encode()
	for _, n := range []byte{0, 5} { // partitions, in one word
		b[len(b)-1] = n
		if got, err := Parse(b); err == nil {
			t.Errorf("%d partitions, and 4 are there: %+v", n, got)
		}
	}
}

// What a session covers counts for blobs of those partitions, in any ring, until the next begins.
func TestWhatIsCovered(t *testing.T) {
	t.Parallel()
	d := New(100)
	one := []string{"a"}
	wantKnown := func(when string, partition uint16, want bool) {
		t.Helper()
		if got := d.Knows(1, partition, ring+1, one); got != want {
			t.Errorf("%s, partition %d: it is known who holds a blob: %v", when, partition, got)
		}
	}
	d.Hear("a", &Message{Session: 1, Ring: ring, First: true, Covers: []uint16{3}})
	wantKnown("all is not told", 3, false)
	d.Hear("a", &Message{Session: 1, Number: 1, Ring: ring, Last: true, Covers: []uint16{4}})
	wantKnown("all is told", 3, true)
	wantKnown("all is told", 4, true)
	wantKnown("all is told", 5, false)
	d.Hear("a", &Message{Session: 1, Number: 2, Covers: []uint16{5, 5}})
	wantKnown("one more is told", 5, true)
	d.Doubt("a")
	wantKnown("it was away", 5, false)
	if !d.Hear("a", &Message{Session: 1, Number: 3}) || !d.Doubts("a") || !d.Doubts("b") {
		t.Error("one that is doubted, or not known, is not to tell all again")
	}
	if d.Hear("a", &Message{Session: 2, Ring: ring, First: true, Last: true, Covers: []uint16{5}}) || d.Doubts("a") {
		t.Error("one that has told all again is doubted")
	}
	wantKnown("another session", 5, true)
	wantKnown("another session", 3, false)
	if !d.Hear("a", &Message{Session: 1, Ring: ring, First: true, Last: true, Covers: []uint16{3}}) {
		t.Error("an earlier session comes late, and is taken")
	}
	wantKnown("an earlier session came late", 5, true)
	wantKnown("an earlier session came late", 3, false)
	d.Keep(func(string) bool { return false })
	d.Hear("b", &Message{Session: 1, Ring: ring, First: true, Last: true}) // has the number of the one that is gone
	if one = []string{"b"}; len(d.covered) > 0 {
		t.Errorf("%v is covered by nobody", d.covered)
	}
	wantKnown("another member", 5, false)
}

// A telling that comes twice is not taken for the end of what followed it.
func TestATellingThatComesTwice(t *testing.T) {
	t.Parallel()
	d := New(100)
	all := &Message{Session: 1, Ring: ring, First: true, Last: true, Covers: []uint16{1}}
	if d.Hear("a", all) || d.Hear("a", &Message{Session: 1, Number: 1, Ring: ring, Held: []Key{5}}) {
		t.Error("it is to tell all again")
	}
	if !d.Hear("a", all) || d.Knows(5, 1, ring, []string{"a"}) {
		t.Errorf("%q hold a blob, and all is told: %v", d.Names(5), d.Knows(5, 1, ring, []string{"a"}))
	}
}
