package certs

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/wait"
)

func TestMain(m *testing.M) {
	// certmagic's own limit of requests has a goroutine that never ends.
	testkit.Main(m, goleak.IgnoreTopFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"))
}

// A mesh is a cluster of keepers without a network. The one with the least id that is up keeps.
type mesh struct {
	mu    sync.Mutex
	nodes map[string]*keeper
	down  map[string]bool
	asked int
}

var errDown = errors.New("it is down")

// up lists the members that are up.
func (m *mesh) up() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(m.nodes)), func(id string) bool { return m.down[id] })
}

// set makes a member go down, or come back.
func (m *mesh) set(id string, down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down[id] = down
}

// node is a member as it sees the others. One that is down sees nobody but itself.
type node struct {
	*mesh
	id string
}

func (n node) Self() string { return n.id }
func (n node) Keeper() string {
	up := n.up()
	if len(up) == 0 || !slices.Contains(up, n.id) {
		return n.id
	}
	return up[0]
}

func (n node) Others() []string {
	return slices.DeleteFunc(n.up(), func(id string) bool { return id == n.id })
}

func (n node) Ask(ctx context.Context, id string, question []byte) (json.RawMessage, error) {
	up := n.up()
	if !slices.Contains(up, id) || !slices.Contains(up, n.id) {
		return nil, errDown
	}
	n.mu.Lock()
	n.asked++
	to := n.nodes[id]
	n.mu.Unlock()
	q, err := parseQuestion(question)
	if err != nil {
		return nil, err
	}
	r, err := to.answer(ctx, n.id, q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// newMesh makes a cluster of such members, each with a folder in dir.
func newMesh(t *testing.T, dir string, ids ...string) *mesh {
	t.Helper()
	m := &mesh{nodes: map[string]*keeper{}, down: map[string]bool{}}
	for _, id := range ids {
		m.add(t, dir, id)
	}
	return m
}

// add adds a member, or starts it anew.
func (m *mesh) add(t *testing.T, dir, id string) {
	t.Helper()
	life := wait.NewLife()
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		life.Close(now)
	})
	k := newKeeper(openShelf(filepath.Join(dir, id)), life, slog.New(slog.DiscardHandler))
	k.join(node{m, id})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes[id] = k
}

// store is the storage of a member.
func (m *mesh) store(id string) storage { return storage{m.nodes[id]} }

// has fails unless the member's own copy of the key is the value.
func (m *mesh) has(t *testing.T, id, key, want string) {
	t.Helper()
	if got, _ := m.nodes[id].shelf.get(key); string(got) != want {
		t.Errorf("%s has %q of %s, not %q", id, got, key, want)
	}
}

// What one member stores is at once on its own shelf and the keeper's, and with all others when
// they look; so is that it was deleted.
func TestStoreReachesAll(t *testing.T) {
	t.Parallel()
	m := newMesh(t, t.TempDir(), "a", "b", "c")
	ctx := t.Context()
	if err := m.store("b").Store(ctx, "x/k", []byte("one")); err != nil {
		t.Fatal(err)
	}
	m.has(t, "a", "x/k", "one")
	m.has(t, "b", "x/k", "one")
	if got, err := m.store("c").Load(ctx, "x/k"); err != nil || string(got) != "one" {
		t.Errorf("c loads %q, %v", got, err)
	}
	if err := m.store("c").Store(ctx, "x/k", []byte("two")); err != nil {
		t.Fatal(err)
	}
	if got, err := m.store("b").Load(ctx, "x/k"); err != nil || string(got) != "two" {
		t.Errorf("b loads %q, %v", got, err)
	}
	if err := m.store("a").Delete(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c"} {
		if _, err := m.store(id).Load(ctx, "x/k"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s still loads what was deleted: %v", id, err)
		}
	}
}

// The keeper dies, with what it alone has not: the next one has what all others have, and a
// member that comes later gets it, more than one answer of it too.
func TestKeeperDies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := newMesh(t, dir, "a", "b", "c")
	ctx := t.Context()
	large := make([]byte, maxValue)
	for i := range 2 * maxPage / maxValue {
		if err := m.store("c").Store(ctx, "x/"+string(rune('a'+i)), large); err != nil {
			t.Fatal(err)
		}
	}
	m.set("a", true)
	if got, err := m.store("b").Load(ctx, "x/a"); err != nil || len(got) != len(large) {
		t.Errorf("the next keeper loads %d bytes, %v", len(got), err)
	}
	m.add(t, dir, "d")
	keys, err := m.store("d").List(ctx, "x", true)
	if err != nil || len(keys) != 2*maxPage/maxValue {
		t.Errorf("a newcomer has %d keys, %v", len(keys), err)
	}
	if err := m.store("d").Store(ctx, "x/a", []byte("new")); err != nil {
		t.Fatal(err)
	}
	m.add(t, dir, "a") // again, with its old disk
	m.set("a", false)
	if got, err := m.store("a").Load(ctx, "x/a"); err != nil || string(got) != "new" {
		t.Errorf("the keeper that comes back serves %d bytes, %v", len(got), err)
	}
}

// All members restart: what they had is on their disks.
func TestFullRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := newMesh(t, dir, "a", "b")
	if err := m.store("b").Store(t.Context(), "x/k", []byte("one")); err != nil {
		t.Fatal(err)
	}
	again := newMesh(t, dir, "b")
	if got, err := again.store("b").Load(t.Context(), "x/k"); err != nil || string(got) != "one" {
		t.Errorf("after a restart it loads %q, %v", got, err)
	}
}

// A node that reaches no keeper keeps what it got, and the others have it when it is back.
func TestNothingIsLostWithoutKeeper(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		m := newMesh(t, dir, "a", "b")
		k := m.nodes["b"]
		k.join(stuck{node{m, "b"}}) // it takes a dead member for the keeper
		m.set("a", true)
		began := time.Now()
		if err := (storage{k}).Store(t.Context(), "x/k", []byte("one")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < patience || took > patience+2*stepTime {
			t.Errorf("it tried for %v", took)
		}
		m.set("a", false)
		k.join(node{m, "b"})
		m.nodes["a"].sync(t.Context())
		m.has(t, "a", "x/k", "one")
	})
}

// stuck is a member that takes a for the keeper, come what may.
type stuck struct{ node }

func (stuck) Keeper() string { return "a" }

// Of all members one has a lock, and on it one goroutine.
func TestLockExcludes(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		m := newMesh(t, dir, "a", "b", "c")
		var wg sync.WaitGroup
		var inside, done int // guarded by the lock alone
		for range 3 {
			for id := range m.nodes {
				wg.Go(func() {
					s := m.store(id)
					if err := s.Lock(t.Context(), "l"); err != nil {
						t.Error(err)
						return
					}
					inside++
					if inside != 1 {
						t.Errorf("%d have the lock", inside)
					}
					<-time.After(leaseTime * 2) // it is renewed meanwhile
					inside--
					done++
					if err := s.Unlock(t.Context(), "l"); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		if done != 9 {
			t.Errorf("%d had it", done)
		}
	})
}

// The holder of a lock dies: another gets it when the lease is over, and not before.
func TestLockEnds(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		m := newMesh(t, dir, "a", "b", "c")
		if err := m.store("b").Lock(t.Context(), "l"); err != nil {
			t.Fatal(err)
		}
		m.set("b", true)
		began := time.Now()
		if err := m.store("c").Lock(t.Context(), "l"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < leaseTime-stepTime || took > leaseTime+2*stepTime {
			t.Errorf("it took %v", took)
		}
		if err := m.store("c").Unlock(t.Context(), "l"); err != nil {
			t.Error(err)
		}
		_ = m.store("b").Unlock(t.Context(), "l") // it is down
	})
}

// The keeper dies while another member holds a lock: the next keeper knows of it.
func TestLockOutlivesKeeper(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		m := newMesh(t, dir, "a", "b", "c")
		if err := m.store("c").Lock(t.Context(), "l"); err != nil {
			t.Fatal(err)
		}
		m.set("a", true)
		if lent, err := m.nodes["b"].tryLock(t.Context(), "l"); lent || err != nil {
			t.Errorf("the new keeper has the lock: %v, %v", lent, err)
		}
		<-time.After(3 * leaseTime)
		if lent, err := m.nodes["b"].tryLock(t.Context(), "l"); lent || err != nil {
			t.Errorf("later the new keeper has the lock: %v, %v", lent, err)
		}
		if err := m.store("c").Unlock(t.Context(), "l"); err != nil {
			t.Error(err)
		}
		if lent, err := m.nodes["b"].tryLock(t.Context(), "l"); !lent || err != nil {
			t.Errorf("nobody gets the lock: %v", err)
		}
		if err := m.store("b").Unlock(t.Context(), "l"); err != nil {
			t.Error(err)
		}
	})
}

// Waiting for a lock ends: with its context, and with patience if no keeper answers.
func TestLockWaitEnds(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		m := newMesh(t, dir, "a", "b", "c")
		if err := m.store("b").Lock(t.Context(), "l"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, id := range []string{"b", "c"} {
			if err := m.store(id).Lock(ctx, "l"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", id, err)
			}
		}
		if err := m.store("b").Unlock(t.Context(), "l"); err != nil {
			t.Error(err)
		}
		m.nodes["c"].join(stuck{node{m, "c"}})
		m.set("a", true)
		if err := m.store("c").Lock(t.Context(), "l"); !errors.Is(err, errDown) {
			t.Errorf("without a keeper: %v", err)
		}
	})
}

// A node on its own has locks and a shelf too.
func TestAlone(t *testing.T) {
	t.Parallel()
	life := wait.NewLife()
	defer life.Close(t.Context())
	s := storage{newKeeper(openShelf(t.TempDir()), life, slog.New(slog.DiscardHandler))}
	if err := s.Lock(t.Context(), "l"); err != nil {
		t.Fatal(err)
	}
	if err := s.Store(t.Context(), "a/b/c", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := s.Unlock(t.Context(), "l"); err != nil {
		t.Error(err)
	}
	if keys, err := s.List(t.Context(), "a", false); err != nil || !slices.Equal(keys, []string{"a/b"}) {
		t.Errorf("it lists %v, %v", keys, err)
	}
	if keys, err := s.List(t.Context(), "", true); err != nil || !slices.Equal(keys, []string{"a", "a/b", "a/b/c"}) {
		t.Errorf("it lists %v, %v", keys, err)
	}
	if info, err := s.Stat(t.Context(), "a/b/c"); err != nil || !info.IsTerminal || info.Size != 1 {
		t.Errorf("it is %+v, %v", info, err)
	}
	if info, err := s.Stat(t.Context(), "a/b"); err != nil || info.IsTerminal {
		t.Errorf("the folder is %+v, %v", info, err)
	}
	if s.Exists(t.Context(), "a/c") || !s.Exists(t.Context(), "a/b") {
		t.Error("it exists, or does not, wrongly")
	}
}

// Who is not the keeper refuses what only the keeper may do.
func TestOnlyTheKeeperLends(t *testing.T) {
	t.Parallel()
	m := newMesh(t, t.TempDir(), "a", "b", "c")
	for _, do := range []string{doLock, doUnlock, doStore, doDelete} {
		r, err := m.nodes["b"].answer(t.Context(), "c", &question{Do: do, Name: "x"})
		if err != nil || !r.Elsewhere || r.Lent || len(r.Records) > 0 {
			t.Errorf("%s: %+v, %v", do, r, err)
		}
	}
}
