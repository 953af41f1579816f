package ring

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestMembersThatMakeNoRingAreRefused(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", MaxID)
	tests := map[string]struct {
		members []Member
		says    string
	}{
		"none":                        {nil, "no members"},
		"one twice":                   {[]Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}, {ID: "a", Weight: 1}}, `"a" is listed twice`},
		"one with two weights":        {[]Member{{ID: "a", Weight: 1}, {ID: "a", Weight: 2}}, `"a" is listed twice`},
		"an empty id":                 {[]Member{{ID: "a", Weight: 1}, {ID: "", Weight: 1}}, "no id"},
		"an id that is too long":      {[]Member{{ID: long + "n", Weight: 1}}, "129 bytes"},
		"an id like a unit's name":    {[]Member{{ID: "a", Weight: 2}, {ID: "a#1", Weight: 1}}, `"a#1"`},
		"an id with a space":          {[]Member{{ID: "a b", Weight: 1}}, `"a b"`},
		"an id with a line break":     {[]Member{{ID: "a\n", Weight: 1}}, `"a\n"`},
		"an id beyond ASCII":          {[]Member{{ID: "knöten", Weight: 1}}, `"knöten"`},
		"an id that is no text":       {[]Member{{ID: "\xff\xfe", Weight: 1}}, `"\xff\xfe"`},
		"no weight":                   {[]Member{{ID: "a", Weight: 0}}, `"a" has a weight of 0`},
		"a negative weight":           {[]Member{{ID: "a", Weight: -1}}, "weight of -1"},
		"the smallest int for weight": {[]Member{{ID: "a", Weight: math.MinInt}}, "weight of -"},
		"too much weight":             {[]Member{{ID: "a", Weight: MaxWeight + 1}}, "weight of 33"},
		"too many":                    {nodes(MaxMembers+1, 1, 1), "2001, more than 2000"},
	}
	good := must(t, []Member{{ID: long, Weight: 1}, {ID: "10.0.0.1:5001", Weight: 1}, {ID: "a:0", Weight: MaxWeight}})
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := New(test.members)
			if r != nil || !errors.Is(err, ErrMembers) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("New returned %v, %v", r, err)
			}
			if r, err = good.Next(test.members); r != nil || !errors.Is(err, ErrMembers) {
				t.Errorf("Next returned %v, %v", r, err)
			}
		})
	}
}

func TestUnitsAreHundredsOfGigabytes(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for bytes, want := range map[int64]int{
		math.MinInt64: 1, -1: 1, 0: 1, 10 * gib: 1, 100 * gib: 1, 150*gib - 1: 1, 150 * gib: 2, 1000 * gib: 10,
		3149 * gib: 31, 3150 * gib: 32, 3200 * gib: 32, 4000 * gib: 32, math.MaxInt64: 32,
	} {
		if got := Units(bytes); got != want {
			t.Errorf("%d bytes are %d units, want %d", bytes, got, want)
		}
	}
}

func TestHashCoversIDsAndWeights(t *testing.T) {
	t.Parallel()
	seen := map[uint64][]Member{}
	for _, members := range [][]Member{
		{{ID: "a", Weight: 1}},
		{{ID: "b", Weight: 1}},
		{{ID: "a", Weight: 2}},
		{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}},
		{{ID: "a", Weight: 1}, {ID: "b", Weight: 2}},
		{{ID: "a", Weight: 2}, {ID: "b", Weight: 1}},
		{{ID: "ab", Weight: 1}},
		{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}, {ID: "c", Weight: 1}},
		{{ID: "a", Weight: 1}, {ID: "bc", Weight: 1}},
		{{ID: "ab", Weight: 1}, {ID: "c", Weight: 1}},
	} {
		h := sign(members)
		if other, ok := seen[h]; ok {
			t.Errorf("%v has the hash of %v", members, other)
		}
		seen[h] = members
	}
}

// However large the disks are, the units stay few enough to build a ring.
func TestWeightsAreHalvedWhereTheyAreTooMany(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ members, weight, units int }{
		{1, 32, 32},
		{80, 10, 800},
		{81, 10, 81 * 5},
		{300, 10, 300 * 2},
		{300, 32, 300 * 2},
		{801, 1, 801},
		{801, 2, 801},
		{MaxMembers, MaxWeight, MaxMembers},
	} {
		members := nodes(test.members, test.weight, 1)
		if got := len(split(members)); got != test.units {
			t.Errorf("%d members of weight %d have %d units, want %d", test.members, test.weight, got, test.units)
		}
	}
}

func TestEveryHalvingKeepsTheFirstUnits(t *testing.T) {
	t.Parallel()
	names := func(members []Member) []string {
		var names []string
		for _, u := range split(members) {
			names = append(names, u.name)
		}
		return names
	}
	members := nodes(81, 10, 1)
	before, after := names(members[:80]), names(members)
	for _, name := range after {
		if !slices.Contains(before, name) && !strings.HasPrefix(name, members[80].ID) {
			t.Errorf("%s is new, so the unit's keys move needlessly", name)
		}
	}
}

// fuzzed makes members from a fuzzer's input: ids separated by commas, and a byte
// for each weight. It makes at most five, since building is slow.
func fuzzed(ids string, weights []byte) []Member {
	var members []Member
	for i, id := range strings.SplitN(ids, ",", 5) {
		m := Member{ID: id, Weight: 1}
		if i < len(weights) {
			m.Weight = int(int8(weights[i]))
		}
		members = append(members, m)
	}
	return members
}

func FuzzNew(f *testing.F) {
	f.Add("a", []byte{1}, "a,b", []byte{1, 2})
	f.Add("a,b,c", []byte{3}, "c,b,d", []byte{1, 1, 32})
	f.Add("a,a#0", []byte{1}, "a,a", []byte{1, 1})
	f.Add("0:a,a", []byte{0, 255}, "", []byte{})
	f.Add("n1,n2", []byte{33, 1}, "n1,\xff", []byte{1, 1})
	f.Fuzz(func(t *testing.T, ids string, weights []byte, nextIDs string, nextWeights []byte) {
		r, err := New(fuzzed(ids, weights))
		check(t, r, err)
		next, err := New(fuzzed(nextIDs, nextWeights))
		check(t, next, err)
		if r == nil {
			return
		}
		after, err := r.Next(fuzzed(nextIDs, nextWeights))
		check(t, after, err)
		if (after == nil) != (next == nil) {
			t.Fatalf("New returned %v and Next %v", next, after)
		}
		if next != nil {
			same(t, after, next)
		}
	})
}

// check fails the test unless there is either a sound ring or an ErrMembers.
func check(t *testing.T, r *Ring, err error) {
	t.Helper()
	if err != nil {
		if r != nil || !errors.Is(err, ErrMembers) {
			t.Fatalf("ring %v, error %v", r, err)
		}
		return
	}
	sum := 0.0
	for _, m := range r.members {
		sum += r.Share(m.ID)
	}
	if math.Abs(sum-1) > 1e-9 {
		t.Fatalf("the shares add up to %v", sum)
	}
}
