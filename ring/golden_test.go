package ring

import (
	"fmt"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// goldenKeys are keys of blobs and of a tag, and the empty key.
var goldenKeys = []string{
	"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	"sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
	"m|registry-1.docker.io|library/nginx|latest",
	"",
}

// golden says who owns what. If a change makes TestGolden fail, nodes with and
// without the change place keys differently, and most content of a mesh would
// move at an upgrade. If the change must be made, change algorithm as well, so
// that the hashes differ, and say so in the changelog.
var golden = []struct {
	name    string
	members []Member
	hash    uint64   // Ring.Hash
	table   uint64   // hash of all owners of all partitions
	owners  []string // of each of goldenKeys
}{
	{
		"one member", numbered(1, 1), 0x12b11677d07a4088, 0xf816cb79f6c61171,
		[]string{"n0", "n0", "n0", "n0", "n0"},
	},
	{
		"two members", numbered(2, 1), 0x905ccd0e087b558d, 0x2819e940834f9090,
		[]string{"n1 n0", "n0 n1", "n0 n1", "n0 n1", "n0 n1"},
	},
	{
		"three members", numbered(3, 1), 0xb8e84d2f721ab4b6, 0x3f093aee8ba9bf86,
		[]string{"n1 n2 n0", "n2 n0 n1", "n0 n1 n2", "n0 n1 n2", "n0 n1 n2"},
	},
	{
		"ten members", numbered(10, 1), 0xe311162857030e61, 0xae04f35a375ea5df,
		[]string{"n8 n1 n5", "n3 n4 n5", "n6 n0 n3", "n7 n3 n4", "n0 n1 n6"},
	},
	{
		"hundred members", numbered(100, 1), 0x6a4380d0bb8077be, 0xb6e551264a9f89b4,
		[]string{"n17 n79 n15", "n97 n74 n42", "n6 n33 n62", "n56 n71 n37", "n77 n53 n66"},
	},
	{
		"members of different weights", numbered(7, 6), 0xd6807dd0c3ef3129, 0xff15ca284ec7c688,
		[]string{"n4 n3 n5", "n3 n5 n4", "n6 n5 n2", "n5 n2 n3", "n0 n1 n4"},
	},
}

// numbered makes the members n0, n1 and so on, with weights from 1 to most.
func numbered(n, most int) []Member {
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{ID: fmt.Sprint("n", i), Weight: 1 + i%most}
	}
	return members
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for _, test := range golden {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := must(t, test.members)
			if got := r.Hash(); got != test.hash {
				t.Errorf("the hash is %#016x, want %#016x", got, test.hash)
			}
			if got := wholeTable(r); got != test.table {
				t.Errorf("the table's hash is %#016x, want %#016x", got, test.table)
			}
			for i, key := range goldenKeys {
				if got := names(r, key); i >= len(test.owners) || got != test.owners[i] {
					t.Errorf("%q belongs to %q", key, got)
				}
			}
		})
	}
}

// names returns the key's owners as one string.
func names(r *Ring, key string) string {
	owners, n := r.Owners(key)
	s := owners[0].ID
	for _, m := range owners[1:n] {
		s += " " + m.ID
	}
	return s
}

func wholeTable(r *Ring) uint64 {
	h := xxhash.New()
	for _, owners := range r.owners {
		for _, m := range owners[:min(Depth, len(r.members))] {
			_, _ = fmt.Fprintln(h, r.members[m].ID)
		}
	}
	return h.Sum64()
}
