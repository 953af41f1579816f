package keeper

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const registry = "registry.test"

// A rig is a keeper of a shard.
type rig struct {
	*Keeper
	t     *testing.T
	dir   string
	shard *grants.Shard
}

// shards are one shard, for all registries but one.
type shards struct{ only *grants.Shard }

func (s shards) Shards() []*grants.Shard { return []*grants.Shard{s.only} }
func (s shards) Shard(r string) *grants.Shard {
	if r == "unknown.test" {
		return nil
	}
	return s.only
}

func newRig(t *testing.T, bound int64) *rig {
	t.Helper()
	dir := t.TempDir()
	shard := grants.OpenShard(dir, cache.Options{Bound: bound})
	k := New(shards{shard}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		k.Close()
		_ = shard.Close()
	})
	if err := shard.Listed(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &rig{k, t, dir, shard}
}

// put puts a blob into the shard.
func (r *rig) put(text string) digest.Digest {
	r.t.Helper()
	d := digest.FromString(text)
	if stored, err := r.shard.Put(r.t.Context(), d, registry, "", []byte(text)); err != nil || !stored {
		r.t.Fatal(stored, err)
	}
	return d
}

// do gives an order as another member would.
func (r *rig) do(order string) (a Answer) {
	r.t.Helper()
	got, err := r.Obey(r.t.Context(), json.RawMessage(order))
	if err != nil {
		r.t.Fatalf("%s: %v", order, err)
	}
	return got.(Answer)
}

// verify verifies to the end.
func (r *rig) verify() (p Progress, wrong []Wrong) {
	r.t.Helper()
	v := Verify{}
	testkit.Await(r.t, "all is verified", func() bool {
		a := r.Do(r.t.Context(), Order{Verify: &v})
		if a.Error != "" {
			r.t.Fatal(a.Error)
		}
		p, wrong = *a.Progress, append(wrong, a.Progress.Wrong...)
		v.Run, v.Known = p.Run, len(wrong)
		return p.Done
	})
	return p, wrong
}

func TestOrdersThatSayNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 0)
	for _, order := range []string{`{}`, `{"later":{"x":1}}`, `null`} {
		if a := r.do(order); a.Error == "" {
			t.Errorf("%s: %+v", order, a)
		}
	}
	for _, order := range []string{``, `{`, `[]`, `{"purge":7}`, `{"pin":{"content":{"x":"y"}}}`} {
		if got, err := r.Obey(t.Context(), json.RawMessage(order)); err == nil {
			t.Errorf("%q: %+v", order, got)
		}
	}
}

// Names that lead elsewhere lead nowhere.
func TestPurgeOfStrangeNames(t *testing.T) {
	t.Parallel()
	r := newRig(t, 0)
	d := r.put("stays")
	for _, order := range []string{
		`{"purge":{"blobs":["sha256:../../etc/passwd","","sha256:00","md5:00","` + digest.FromString("none").String() + `"]}}`,
		`{"purge":{"tags":[{"registry":"unknown.test","repository":"a","tag":"v1","keys":["../x"]},{"registry":"` + registry + `","keys":["","../../x y z"]}]}}`,
		`{"purge":{}}`,
	} {
		if a := r.do(order); a.Blobs != 0 || a.Bytes != 0 {
			t.Errorf("%s: %+v", order, a)
		}
	}
	if _, held := r.shard.Stat(d); !held {
		t.Error("a blob is gone that nobody named")
	}
	if a := r.do(fmt.Sprintf(`{"purge":{"blobs":[%q,%q]}}`, d, d)); a.Blobs != 1 || a.Bytes != 5 {
		t.Errorf("%+v", a)
	}
}

// A large image is pinned by several orders. One by the same name later replaces it.
func TestPinByParts(t *testing.T) {
	t.Parallel()
	r := newRig(t, 400)
	a, b, c := digest.FromString("a"), digest.FromString("b"), digest.FromString("c")
	pin := func(d digest.Digest, size int, more bool) Answer {
		return r.do(fmt.Sprintf(`{"pin":{"name":"n","registry":%q,"content":{%q:%d},"more":%v}}`, registry, d, size, more))
	}
	if one, two := pin(a, 50, false), pin(b, 50, true); one.Error != "" || two.Error != "" {
		t.Errorf("%+v %+v", one, two)
	}
	if got := r.shard.Stock().Retained(); len(got) != 1 || len(got[0].Content) != 2 {
		t.Errorf("%+v", got)
	}
	if three := pin(c, 1, true); three.Error == "" {
		t.Error("more than a quarter is pinned")
	}
	if got := r.shard.Stock().Retained(); len(got) != 0 {
		t.Errorf("of a pin that was refused stays %+v", got)
	}
	if again := pin(c, 100, false); again.Error != "" {
		t.Errorf("%+v", again)
	}
	if first, second := pin(a, 1, false), pin(b, 100, true); first.Error != "" || second.Error == "" {
		t.Errorf("%+v %+v", first, second)
	}
	if tooMuch := pin(a, 101, false); tooMuch.Error == "" {
		t.Error("more than a quarter is pinned")
	}
	if got := r.shard.Stock().Retained(); len(got) != 1 || got[0].Content[c] != 100 || len(got[0].Content) != 1 {
		t.Errorf("%+v", got)
	}
	if a := r.do(`{"pin":{"name":"n","registry":"unknown.test","content":{}}}`); a.Error != "" {
		t.Errorf("a registry without a shard: %+v", a)
	}
	unpin := `{"unpin":{"name":"n","registry":"` + registry + `"}}`
	if first, second := r.do(unpin), r.do(unpin); !first.Had || second.Had {
		t.Errorf("%+v %+v", first, second)
	}
}

func TestVerifyRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t, 0)
	if p, wrong := r.verify(); p.Blobs != 0 || len(wrong) != 0 {
		t.Errorf("of nothing: %+v %v", p, wrong)
	}
	for i := range 5 {
		r.put(fmt.Sprint("blob ", i))
	}
	bad := digest.FromString("blob 3")
	if err := os.WriteFile(filepath.Join(r.dir, "blobs/sha256", bad.Encoded()[:2], bad.Encoded()), []byte("BLOB 3"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, wrong := r.verify()
	if p.Blobs != 5 || p.Of != 5 || p.Bytes != 30 || p.Bad != 1 || len(wrong) != 1 || wrong[0].Digest != bad || wrong[0].Registry != registry {
		t.Errorf("%+v %+v", p, wrong)
	}
	if a := r.do(`{"verify":{"run":1}}`); a.Error == "" {
		t.Errorf("of a run that never was: %+v", a)
	}
	if a := r.do(fmt.Sprintf(`{"verify":{"run":%d,"known":-1}}`, p.Run)); a.Error == "" {
		t.Errorf("%+v", a)
	}
	if p, _ := r.verify(); p.Blobs != 4 || p.Bad != 0 {
		t.Errorf("%+v", p)
	}
}

// A verification ends that nobody asks about. Two who ask share one.
func TestVerifyIsLetGo(t *testing.T) {
	t.Parallel()
	stopped := false
	r := &run{stop: func() { stopped = true }, at: Progress{Run: 7}, asked: time.Now()}
	r.note(cache.Entry{Size: 1}, nil)
	if _, ok := r.progress(&Verify{}); !ok || stopped || r.over() {
		t.Error("a second one does not join")
	}
	r.asked = time.Now().Add(-2 * patience)
	r.note(cache.Entry{Size: 1}, nil)
	if !stopped || !r.over() {
		t.Error("it goes on though nobody asks")
	}
	r.end()
	if p, ok := r.progress(&Verify{Run: 7}); ok || !r.over() {
		t.Errorf("it seems to go on: %+v", p)
	}
}

// Wrong blobs are told in parts, and all of them before it is over.
func TestVerifyTellsInParts(t *testing.T) {
	t.Parallel()
	r := &run{stop: func() {}, at: Progress{Run: 7}, asked: time.Now()}
	for range maxTold + 5 {
		r.note(cache.Entry{}, cache.ErrDamaged)
	}
	r.finish()
	p, _ := r.progress(&Verify{Run: 7})
	rest, _ := r.progress(&Verify{Run: 7, Known: len(p.Wrong)})
	if len(p.Wrong) != maxTold || p.Done || len(rest.Wrong) != 5 || !rest.Done || rest.Bad != maxTold+5 {
		t.Errorf("%d, %v; then %d, %v", len(p.Wrong), p.Done, len(rest.Wrong), rest.Done)
	}
}
