package membership

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"oci-proxy/ring"
)

func someone() *Member {
	return &Member{
		ID: newID(), Name: "node-1.example", Epoch: 1_790_000_000, Peer: "10.20.30.40:7947", Zone: "rack-a", Version: "1.0.0",
		Weight: 3, Egress: true, Relays: true, Hears: true, Certificates: true, Whitelist: true, State: Draining, Nonce: bytes.Repeat([]byte{7}, nonceSize), Fingerprint: [32]byte{1, 2, 3},
		keys: sketch([]string{oldSecret, newSecret}),
	}
}

func registries(n int) (all []Registry) {
	for i := range n {
		all = append(all, Registry{Host: fmt.Sprintf("registry-%d.example", i), Login: i%2 == 0, Private: i%3 == 0})
	}
	return all
}

func TestAMetaIsDecodedAsItWasEncoded(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, maxRegistries} {
		m := someone()
		m.registries, _ = pack(registries(n))
		b, err := encode(m)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d registries: %d bytes", n, len(b))
		got, err := decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			got.registries = nil
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("decoded %+v\n from %s", got, b)
		}
		for _, r := range registries(n) {
			if is, login, private := got.Has(r.Host); !is || login != r.Login || private != r.Private {
				t.Errorf("%s: %v %v %v", r.Host, is, login, private)
			}
		}
		if is, _, _ := got.Has("elsewhere.example"); is {
			t.Error("it counts as configured for a registry that it is not")
		}
	}
}

func TestTooManyRegistriesCountAsAny(t *testing.T) {
	t.Parallel()
	m := someone()
	var left int
	m.registries, left = pack(registries(maxRegistries + 1))
	m.any, m.anySecret = left&anyRegistry != 0, left&anyPrivate != 0
	long := someone()
	long.Name, long.registries = strings.Repeat("n", maxText), bytes.Repeat([]byte{1}, maxRegistries*entrySize)
	for _, m := range []*Member{m, long} {
		b, err := encode(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if is, login, private := got.Has("any.example"); !is || login || private || len(b) > maxMeta {
			t.Errorf("%v %v %v, %d bytes", is, login, private, len(b))
		}
	}
}

func TestRegistriesAreSortedWithoutDuplicates(t *testing.T) {
	t.Parallel()
	all := registries(20)
	want, _ := pack(all)
	for range 5 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if got, _ := pack(append(all, all[3])); !bytes.Equal(got, want) {
			t.Fatal("the entries depend on the order of the registries")
		}
	}
}

func TestBadMetasAreRefused(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(map[string]any){
		"no id":             func(w map[string]any) { delete(w, "i") },
		"a short id":        func(w map[string]any) { w["i"] = "abcd" },
		"capitals":          func(w map[string]any) { w["i"] = strings.Repeat("A", 32) },
		"no epoch":          func(w map[string]any) { w["e"] = 0 },
		"no weight":         func(w map[string]any) { delete(w, "w") },
		"too much weight":   func(w map[string]any) { w["w"] = ring.MaxWeight + 1 },
		"another state":     func(w map[string]any) { w["s"] = "x" },
		"a short nonce":     func(w map[string]any) { w["n"] = "AAAA" },
		"a bad fingerprint": func(w map[string]any) { w["f"] = "AAAA" },
		"a short sketch":    func(w map[string]any) { w["k"] = "AAAAAAA" },
		"bad registries":    func(w map[string]any) { w["r"] = "AAAAAAA" },
		"another ring":      func(w map[string]any) { w["t"] = "00000000" },
		"control in a name": func(w map[string]any) { w["m"] = "a\nb" },
		"a long zone":       func(w map[string]any) { w["z"] = strings.Repeat("z", maxText+1) },
		"no peer":           func(w map[string]any) { delete(w, "p") },
		"peer's port 0":     func(w map[string]any) { w["p"] = "10.0.0.1:0" },
		"peer without host": func(w map[string]any) { w["p"] = ":7947" },
		"a path as peer":    func(w map[string]any) { w["p"] = "a/b:7947" },
		"too long":          func(w map[string]any) { w["new"] = strings.Repeat("z", maxHeard) },
		"a number for text": func(w map[string]any) { w["p"] = 1 },
	} {
		b, _ := encode(someone())
		var w map[string]any
		json.Unmarshal(b, &w)
		spoil(w)
		if b, _ = json.Marshal(w); true {
			if m, err := decode(b); err == nil {
				t.Errorf("%s: %+v", name, m)
			}
		}
	}
	b, _ := encode(someone())
	if _, err := decode(append(b[:len(b)-1], `,"later":{"a":[1]}}`...)); err != nil {
		t.Errorf("a meta with an unknown key was refused: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	m := someone()
	b, _ := encode(m)
	f.Add(b)
	m.registries, _ = pack(registries(9))
	b, _ = encode(m)
	f.Add(b)
	f.Add([]byte(`{"i":"`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		if err := checkRing(m); err != nil {
			t.Fatalf("the member would break the ring: %v", err)
		}
		m.Has("ghcr.io")
		again, err := encode(m)
		if err != nil {
			return // longer than we may send
		}
		back, err := decode(again)
		if err != nil {
			t.Fatalf("%s can't be decoded: %v", again, err)
		}
		if !m.any && back.any {
			return // the registries did not fit
		}
		if len(m.registries) == 0 {
			m.registries = back.registries
		}
		if len(m.keys) == 0 {
			m.keys = back.keys
		}
		if !reflect.DeepEqual(m, back) {
			t.Fatalf("%+v was decoded as %+v", m, back)
		}
	})
}

func checkRing(m *Member) error {
	if m.Weight < 1 || m.Weight > ring.MaxWeight || len(m.ID) > ring.MaxID || strings.Contains(m.ID, "#") {
		return ring.ErrMembers
	}
	return nil
}

func FuzzReport(f *testing.F) {
	b, _ := encode(someone())
	one, _ := json.Marshal(report{Down: []absentee{{b, "10.0.0.1:7946", 1000}}})
	f.Add(one)
	gone, _ := json.Marshal(report{Gone: []departure{{ID: newID(), Epoch: 1, Name: "a", Gossip: "10.0.0.1:1", Ago: 5}, {ID: newID(), Epoch: 1, Left: true, Said: true}, {ID: newID(), Epoch: 2, Left: true}}, Self: &card{ID: newID()}, Mute: []unheard{{newID(), 1, "10.0.0.1:1", "no answer"}}})
	f.Add(gone)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := prepare(Config{Name: "a", BindAddr: "127.0.0.1:0", PeerAddr: ":7947", Weight: 1, Log: quietLog})
		if err != nil {
			t.Fatal(err)
		}
		m.publish(nil, nil, nil)
		d := delegate{m, func() bool { return true }}
		d.MergeRemoteState(b, false)
		d.LocalState(false)
		d.NotifyMsg(b)
		if n := len(m.book.known); n > maxGone+maxLeft {
			t.Errorf("%d members are known", n)
		}
	})
}

// A member with more registries than fit still lists the private ones: else the
// other members would show their content to anybody.
func TestPrivateRegistriesAreListedFirst(t *testing.T) {
	t.Parallel()
	var many []Registry
	for i := range 2 * maxRegistries {
		many = append(many, Registry{Host: fmt.Sprintf("registry-%d.example", i), Login: i%8 == 0, Private: i%8 == 0})
	}
	secrets := slices.Clone(many)
	for i := range secrets {
		secrets[i].Private = true
	}
	for _, all := range [][]Registry{many, secrets} {
		for _, name := range []string{"node-1", strings.Repeat("n", maxText)} {
			m := someone()
			m.Name = name
			entries, left := pack(all)
			m.registries, m.any, m.anySecret = entries, left&anyRegistry != 0, left&anyPrivate != 0
			b, err := encode(m)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decode(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range all {
				if is, _, private := got.Has(r.Host); !is || r.Private && !private {
					t.Errorf("%s: %v %v", r.Host, is, private)
				}
			}
		}
	}
}
