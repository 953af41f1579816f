package directory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	// go-digest knows only the algorithms that are linked in.
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const ring = 7

// tellAll makes a member tell all that it holds, at once.
func tellAll(d *Directory, id string, session uint64, keys ...Key) bool {
	for i := 0; ; i++ {
		some := keys[:min(len(keys), MaxKeys)]
		keys = keys[len(some):]
		again := d.Hear(id, &Message{Session: session, Number: uint32(i), Ring: ring, First: i == 0, Last: len(keys) == 0, Held: some})
		if again || len(keys) == 0 {
			return again
		}
	}
}

// names is Names in order.
func names(d *Directory, k Key) []string { return slices.Sorted(slices.Values(d.Names(k))) }

func TestKeysAreOfDigestsAlone(t *testing.T) {
	t.Parallel()
	a, ok := KeyOf(digest.FromString("a").String())
	if b, also := KeyOf(digest.SHA512.FromString("a").String()); !ok || !also || a == b || a != 0xca978112ca1bbdca {
		t.Errorf("%x %v, %x %v", a, ok, b, also)
	}
	for _, s := range []string{"", "sha256:", "registry.example/team/app:latest", "md5:0123456789abcdef0123456789abcdef"} {
		if k, ok := KeyOf(s); ok {
			t.Errorf("%q has the key %x", s, k)
		}
	}
}

func TestMembersAreBelievedAboutThemselves(t *testing.T) {
	t.Parallel()
	d := New(100)
	if tellAll(d, "a", 1, 10, 11) || tellAll(d, "b", 2, 11) {
		t.Error("all came, and it is to be told again")
	}
	for k, want := range map[Key][]string{10: {"a"}, 11: {"a", "b"}, 12: nil} {
		if got := names(d, k); !slices.Equal(got, want) || !d.Knows(k, 0, ring, []string{"a", "b"}) {
			t.Errorf("%d: %q, want %q", k, got, want)
		}
	}
	for _, others := range [][]string{nil, {"a", "b", "c"}} {
		if d.Knows(12, 0, ring, others) || d.Knows(12, 0, ring+1, []string{"a"}) {
			t.Errorf("it knows of %q, or in another ring", others)
		}
	}
	if d.Hear("a", &Message{Session: 1, Number: 1, Held: []Key{12}, Gone: []Key{10}}) || d.Hear("b", &Message{Session: 2, Number: 1, Gone: []Key{10, 12}}) {
		t.Error("a change is to be told again")
	}
	if len(d.Names(10)) != 0 || !slices.Equal(d.Names(12), []string{"a"}) || !d.Knows(10, 0, ring, []string{"a"}) {
		t.Errorf("after changes: %q, %q", d.Names(10), d.Names(12))
	}
	d.Keep(func(id string) bool { return id == "b" })
	if len(d.Names(12)) != 0 || !slices.Equal(d.Names(11), []string{"b"}) || d.Knows(10, 0, ring, []string{"a"}) {
		t.Error("a member that is gone is believed")
	}
	if tellAll(d, "c", 3); len(d.Names(12)) != 0 { // in the place of the one that is gone
		t.Errorf("another member is named for it: %q", d.Names(12))
	}
}

// What a member told before counts until it has told all anew, and then no more.
func TestAllThatIsToldReplacesWhatWas(t *testing.T) {
	t.Parallel()
	d := New(100)
	tellAll(d, "a", 1, 10, 11)
	d.Hear("a", &Message{Session: 2, Ring: ring, First: true, Held: []Key{11}})
	if !slices.Equal(d.Names(10), []string{"a"}) || d.Knows(12, 0, ring, []string{"a"}) {
		t.Error("what was told is forgotten before all is told anew, or counts as all")
	}
	d.Hear("a", &Message{Session: 2, Number: 1, Ring: ring, Last: true, Held: []Key{13}})
	if len(d.Names(10)) != 0 || len(d.Names(11)) != 1 || len(d.Names(13)) != 1 || !d.Knows(10, 0, ring, []string{"a"}) {
		t.Errorf("afterwards: %q %q %q", d.Names(10), d.Names(11), d.Names(13))
	}
	for round := range uint64(70_000) { // rounds are counted in 16 bits
		tellAll(d, "a", 3+round, 11)
	}
	if len(d.Names(13)) != 0 || len(d.Names(11)) != 1 {
		t.Errorf("after many rounds: %q %q", d.Names(13), d.Names(11))
	}
}

// A message that got lost, or was for an earlier start of this node, makes all be told again.
func TestGapsAreSeen(t *testing.T) {
	t.Parallel()
	d := New(100)
	change := &Message{Session: 1, Number: 1, Held: []Key{1}}
	if !d.Hear("a", change) {
		t.Error("changes of what was never told are taken")
	}
	tellAll(d, "a", 1, 10)
	for name, m := range map[string]*Message{
		"one is missing":  {Session: 1, Number: 2},
		"another session": {Session: 2, Number: 1},
		"one comes twice": {Session: 1, Number: 0, Held: []Key{5}},
	} {
		if !d.Hear("a", m) || d.Knows(1, 0, ring, []string{"a"}) || !d.Hear("a", change) {
			t.Errorf("%s, and it is not told again", name)
		}
		if len(d.Names(10)) != 1 {
			t.Errorf("%s: what was told before is forgotten", name)
		}
		tellAll(d, "a", 1, 10)
	}
}

// One member can't push out what others say, and the directory says when it does not know all.
func TestADirectoryIsBounded(t *testing.T) {
	t.Parallel()
	const most = 1000
	d := New(most)
	tellAll(d, "honest", 1, 1, 2, 3)
	var lies []Key
	for i := range 3 * most {
		lies = append(lies, Key(100+i))
	}
	tellAll(d, "liar", 2, lies...)
	if f := d.Figures(); f.Entries != 3+most/maxShare || f.Members != 1 || len(d.Names(1)) != 1 || !d.Knows(99, 0, ring, []string{"honest"}) || d.Knows(99, 0, ring, []string{"honest", "liar"}) {
		t.Errorf("a liar: %+v", f)
	}
	for i := range 10 * most { // it gets and loses
		d.Hear("liar", &Message{Session: 2, Number: uint32(2 + i), Gone: lies[i%250 : i%250+1]})
		d.Hear("liar", &Message{Session: 2, Number: uint32(3 + i), Held: lies[i%250 : i%250+1]})
	}
	if len(d.Names(1)) != 1 || !d.Knows(99, 0, ring, []string{"honest"}) {
		t.Error("a liar pushes out what others say")
	}
	for i := range 8 {
		tellAll(d, fmt.Sprint("member", i), 1, lies[250*i:250*(i+1)]...)
	}
	f := d.Figures()
	if f.Entries != most || d.Knows(99, 0, ring, []string{"honest"}) || f.Bytes > most*(24+8) {
		t.Errorf("more than fits: %+v", f)
	}
	if !d.Knows(99, 0, ring, []string{"member7"}) {
		t.Error("who told last is forgotten first")
	}
	for i := range 2 * maxMembers {
		tellAll(d, fmt.Sprint("stranger", i), 1)
	}
	if len(d.tellers) > maxMembers+1 {
		t.Errorf("%d members are heard", len(d.tellers))
	}
	if d.Doubts("one too many") {
		t.Error("one for which there is no room is to tell all, which would not help")
	}
}

// Of many holders some are named. When those are gone, nobody knows whether others are.
func TestManyHoldersOfABlob(t *testing.T) {
	t.Parallel()
	d := New(100)
	var all []string
	for i := range 2 * maxNames {
		all = append(all, fmt.Sprint("member", i))
		tellAll(d, all[i], 1, 1)
	}
	if len(d.Names(1)) != maxNames || d.Knows(1, 0, ring, all) || !d.Knows(2, 0, ring, all) || d.Figures().Entries != maxNames+1 {
		t.Errorf("%q, %+v", d.Names(1), d.Figures())
	}
	for _, id := range all[:maxNames] {
		d.Hear(id, &Message{Session: 1, Number: 1, Gone: []Key{1}})
	}
	if len(d.Names(1)) != 0 || d.Knows(1, 0, ring, all) {
		t.Errorf("after those are gone: %q", d.Names(1))
	}
}

// Whatever is told, the directory says what a plain map would say.
func TestADirectoryAgainstAMap(t *testing.T) {
	t.Parallel()
	draw := rand.New(rand.NewPCG(1, 2))
	d, model := New(1<<12), map[Key]map[string]bool{}
	number := map[string]uint32{}
	for step := range 20_000 {
		id, k := fmt.Sprint("m", draw.IntN(5)), Key(draw.IntN(300))
		if model[k] == nil {
			model[k] = map[string]bool{}
		}
		switch draw.IntN(20) {
		case 0:
			var keys []Key
			for k, by := range model {
				if delete(by, id); draw.IntN(3) == 0 {
					keys = append(keys, k)
					by[id] = true
				}
			}
			tellAll(d, id, uint64(step+1), keys...)
			number[id] = 1
		default:
			m := &Message{Session: d.session(id), Number: number[id]}
			if m.Session == 0 {
				continue
			}
			number[id]++
			if draw.IntN(2) == 0 {
				m.Held, model[k][id] = []Key{k}, true
			} else {
				m.Gone = []Key{k}
				delete(model[k], id)
			}
			if d.Hear(id, m) {
				t.Fatal("a gap is seen where there is none")
			}
		}
		if got := d.Names(k); len(got) != len(model[k]) || slices.ContainsFunc(got, func(id string) bool { return !model[k][id] }) {
			t.Fatalf("step %d: %q, want %v", step, got, model[k])
		}
	}
	held := 0
	for _, by := range model {
		held += len(by)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	counted := 0
	for _, one := range d.tellers {
		counted += one.held
	}
	if counted != held {
		t.Errorf("%d entries count, want %d", counted, held)
	}
}

// session is in which a member tells.
func (d *Directory) session(id string) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.numbers[id]
	if !ok {
		return 0
	}
	return d.tellers[n].session
}

func TestMessagesTravel(t *testing.T) {
	t.Parallel()
	keys := make([]Key, MaxKeys)
	for _, m := range []*Message{
		{Session: 1},
		{Session: 1 << 63, Number: 1 << 31, Ring: 1 << 62, First: true, Last: true, Held: []Key{1, 1 << 63}, Gone: []Key{2}},
		{Session: 3, Last: true, Held: keys},
		{Session: 3, Gone: keys},
	} {
		b := m.Encode()
		got, err := Parse(b)
		if err != nil || got.Session != m.Session || got.Number != m.Number || got.Ring != m.Ring || got.First != m.First || got.Last != m.Last || !slices.Equal(got.Held, m.Held) || !slices.Equal(got.Gone, m.Gone) {
			t.Errorf("%+v became %+v, %v", m, got, err)
		}
		for cut := range min(len(b), 100) {
			if _, err := Parse(b[:cut]); err == nil && (cut-headSize)%8 != 0 {
				t.Errorf("%d of %d bytes are taken", cut, len(b))
			}
		}
	}
	if _, err := Parse((&Message{Session: 1, Held: keys, Gone: keys[:1]}).Encode()); err == nil {
		t.Error("a message that is too long is taken")
	}
	if _, err := Parse((&Message{}).Encode()); err == nil {
		t.Error("a message without a session is taken")
	}
}

// FuzzHear: no message breaks the directory or its bounds.
func FuzzHear(f *testing.F) {
	f.Add([]byte{}, (&Message{Session: 1, First: true, Last: true, Held: []Key{1, 2}}).Encode())
	f.Add((&Message{Session: 1, First: true, Held: []Key{1, 2}}).Encode(), (&Message{Session: 1, Number: 1, Last: true, Gone: []Key{2}}).Encode())
	f.Add((&Message{Session: 1, First: true, Covers: []uint16{1, 2, 3, 4, 5}}).Encode(), (&Message{Session: 1, Number: 1, Again: true, Covers: []uint16{6}}).Encode())
	f.Fuzz(func(t *testing.T, a, b []byte) {
		d := New(16)
		for i := range 8 {
			for _, raw := range [][]byte{a, b} {
				if m, err := Parse(raw); err == nil {
					d.Hear(fmt.Sprint(i%3), m)
				}
			}
		}
		if f := d.Figures(); f.Entries > 16 {
			t.Errorf("%+v", f)
		}
	})
}

// What a directory that is full takes for each entry.
func TestBytesOfAnEntry(t *testing.T) {
	t.Parallel()
	d := New(MaxEntries)
	for i := range maxShare {
		var keys []Key
		for k := range MaxEntries / maxShare {
			keys = append(keys, Key(i<<32+k))
		}
		tellAll(d, fmt.Sprint(i), 1, keys...)
	}
	f := d.Figures()
	if each := float64(f.Bytes) / float64(f.Entries); f.Entries != MaxEntries || each > 28 {
		t.Errorf("%+v: %.1f bytes each", f, each)
	}
	t.Logf("%+v", f)
}

// Tellings that break off count: what they brought takes of the member's share, and goes when it
// tells all again.
func TestTellingsThatBreakOff(t *testing.T) {
	t.Parallel()
	d := New(4000)
	for session := range uint64(4) {
		var keys []Key
		for k := range 950 {
			keys = append(keys, Key(session*10_000+uint64(k)))
		}
		d.Hear("a", &Message{Session: session + 1, Ring: ring, First: true, Held: keys})
	}
	if named := countNamed(d, 40_000); named > 1000+950 {
		t.Errorf("%d entries of one member count, which may have 1000", named)
	}
	tellAll(d, "a", 9, 7)
	if named := countNamed(d, 40_000); named != 1 || len(d.Names(7)) != 1 || !d.Knows(7, 0, ring, []string{"a"}) {
		t.Errorf("%d entries count after all was told again", named)
	}
	for k := range 999 {
		d.Hear("a", &Message{Session: 9, Number: uint32(k + 1), Held: []Key{Key(100_000 + k)}})
	}
	if !d.Knows(7, 0, ring, []string{"a"}) {
		t.Error("a whole share is too much")
	}
	d.Hear("a", &Message{Session: 9, Number: 1000, Held: []Key{200_000}})
	if d.Knows(7, 0, ring, []string{"a"}) {
		t.Error("a member has more than its share")
	}
}

// countNamed counts the keys below most of which somebody is named.
func countNamed(d *Directory, most Key) (n int) {
	for k := range most {
		if len(d.Names(k)) > 0 {
			n++
		}
	}
	return n
}

// A member that was away is not counted on until it has told all again.
func TestDoubts(t *testing.T) {
	t.Parallel()
	d := New(100)
	tellAll(d, "a", 1, 10)
	d.Doubt("b")
	if !d.Knows(1, 0, ring, []string{"a"}) {
		t.Fatal("it is not known that nobody has it")
	}
	if d.Doubt("a"); d.Knows(1, 0, ring, []string{"a"}) || len(d.Names(10)) != 1 {
		t.Error("one that was away is counted on, or forgotten")
	}
	if tellAll(d, "a", 2, 10); !d.Knows(1, 0, ring, []string{"a"}) {
		t.Error("one that has told all again is doubted")
	}
}
