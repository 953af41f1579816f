package figures

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"oci-proxy/cache"
	"oci-proxy/transfer/count"
)

// Every figure has a name and one place where it is counted.
func TestTheTableIsWhole(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for f, row := range Table {
		if row.Name == "" || names[row.Name] {
			t.Errorf("figure %d is called %q", f, row.Name)
		}
		names[row.Name] = true
		if bound := Figure(f) == MaxSize; (row.counter == nil) == (row.held == nil) != bound {
			t.Errorf("%s is counted in no place or in two", row.Name)
		}
	}
}

func TestFiguresAreCountedWhereTheTableSays(t *testing.T) {
	t.Parallel()
	var c count.Counters
	for f, row := range Table {
		if row.counter != nil {
			row.counter(&c).Store(int64(100 + f))
		}
	}
	var r Registry
	r.Count(&c)
	r.Hold(cache.Stats{Items: 1, Bytes: 2, Evictions: [4]uint64{1, 0, 2, 0}, Bound: 4})
	r.Hold(cache.Stats{Items: 10, Bytes: 20, Evictions: [4]uint64{0, 30, 0, 0}, Bound: 4})
	want := Registry{100, 101, 102, 33, 11, 22, 4, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116}
	if r != want {
		t.Errorf("got %v, want %v", r, want)
	}
	if r.Add(&want); r[MaxSize] != 8 || r[Hits] != 200 || r[ToPeersBytes] != 226 {
		t.Errorf("the sum is %v", r)
	}
}

// The names and their order are outward.
func TestFiguresAsJSON(t *testing.T) {
	t.Parallel()
	var r Registry
	var want []string
	for f, name := range []string{
		"Hits", "PeerHits", "Misses", "Evictions", "Items", "CurrentSize", "MaxSize", "HitBytes", "PeerHitBytes", "MissBytes",
		"FromUpstreamBytes", "FromPeersBytes", "ToPeers", "ToPeersBytes", "PeersPassed", "FromArchiveBytes", "Resumes",
	} {
		r[f] = int64(f)
		want = append(want, fmt.Sprintf("%q:%d", name, f))
	}
	raw, err := json.Marshal(&r)
	if text := "{" + strings.Join(want, ",") + "}"; err != nil || string(raw) != text {
		t.Errorf("got %s, %v; want %s", raw, err, text)
	}
	var back Registry
	if err := json.Unmarshal(raw, &back); err != nil || back != r {
		t.Errorf("read back: %v, %v", back, err)
	}
}

// Each /v2/ adds up other nodes' figures: none of them may break it.
func TestOthersFiguresAreChecked(t *testing.T) {
	t.Parallel()
	got, err := Parse([]byte(`{"registries": {"a": null, "b": {"Hits": 3, "Newer": {}}}, "max_size": 5}`))
	if want := (&Node{Registries: map[string]*Registry{"b": {Hits: 3}}, MaxSize: 5}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := Parse([]byte(`null`)); err != nil || got == nil {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{
		`[]`, `{"registries": {"a": []}}`, `{"registries": {"a": {"Hits": -1}}}`, `{"registries": {"a": {"ToPeersBytes": 9007199254740993}}}`,
		`{"registries": {"a": {"Hits": 1.5}}}`, `{"registries": {"a b": {}}}`, `{"max_size": -1}`, `{"directory": {"entries": -1}}`, `{"registries": {"` + strings.Repeat("a", 256) + `": {}}}`,
	} {
		if got, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}

// Why others are degraded is shown to people: it is bounded, and each reason is a line.
func TestReasonsAreBounded(t *testing.T) {
	t.Parallel()
	many, err := json.Marshal(slices.Repeat([]string{"a\n\x1b[2J" + strings.Repeat("ü", 2000)}, 100))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse([]byte(`{"uptime_seconds": 7, "pulls": 2, "reasons": ` + string(many) + `}`))
	if err != nil || got.Uptime != 7 || got.Pulls != 2 || len(got.Reasons) != maxReasons {
		t.Fatalf("%+v, %v", got, err)
	}
	if one := got.Reasons[0]; len(one) > maxReason || !strings.HasPrefix(one, "a  [2Jü") || !utf8.ValidString(one) {
		t.Errorf("%d bytes: %q", len(one), one)
	}
	for _, bad := range []string{`{"uptime_seconds": -1}`, `{"pulls": -1}`, `{"reasons": "x"}`} {
		if got, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}

// Another node may say anything of its registries, too.
func TestOthersUpstreamsAreBounded(t *testing.T) {
	t.Parallel()
	one := `{"registry": "a\u001b[2J", "host": "a", "state": "down", "last_error": "` + strings.Repeat("x", 5000) + `"}`
	n, err := Parse([]byte(`{"upstreams": [` + strings.Repeat(one+",", 99) + one + `]}`))
	if err != nil || len(n.Upstreams) != 32 {
		t.Fatalf("%+v, %v", n, err)
	}
	if u := n.Upstreams[31]; u.Registry != "a [2J" || u.State != "down" || len(u.LastError) != 1<<10 {
		t.Errorf("%+v", u)
	}
}
