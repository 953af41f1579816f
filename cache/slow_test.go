package cache

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// A stall holds up the first file call that it fits until it is let go.
type stall struct {
	op, name string // of the call; the name's beginning
	once     sync.Once
	reached  chan struct{} // closed when the call is held up
	release  chan struct{}
}

func newStall(op, name string) *stall {
	return &stall{op: op, name: name, reached: make(chan struct{}), release: make(chan struct{})}
}

func (s *stall) fault(op, name string) error {
	if op == s.op && strings.HasPrefix(name, s.name) {
		s.once.Do(func() {
			close(s.reached)
			<-s.release
		})
	}
	return nil
}

// during runs slow, which the stall holds up, and meanwhile others.
func (s *stall) during(slow, others func()) {
	var wg sync.WaitGroup
	wg.Go(slow)
	<-s.reached
	others()
	close(s.release)
	wg.Wait()
}

// othersGoOn fails the test unless a store whose disk holds up one call does
// everything else: it hangs if a lock lies over that call.
func othersGoOn(t *testing.T, s *Store, held sample) {
	t.Helper()
	want(t, s, held)
	if h, ok, sure := s.Known(held.digest); !ok || !sure || h.Size != int64(len(held.content)) {
		t.Error("Known:", h, ok, sure)
	}
	keep(t, s, newSample(700, 150_000))
	s.SetTag(Tag{Key: "other", Digest: held.digest})
	if _, ok := s.Tag("other"); !ok {
		t.Error("tag is lost")
	}
	if s.Size() == 0 || s.Health() != nil || len(s.Blobs()) < 2 || s.Stats()[registry].Items < 2 {
		t.Error("figures:", s.Size(), s.Health(), s.Stats())
	}
}

func TestSlowRenameOfACommitHoldsUpNobody(t *testing.T) {
	t.Parallel()
	held, slow := newSample(701, 200_000), newSample(702, 300_000)
	st := newStall("rename", mustName(slow).path())
	s := start(t, t.TempDir(), Options{Fault: st.fault})
	keep(t, s, held)
	in := begin(t, s, slow)
	in.SetSize(300_000)
	var follower Blob
	st.during(func() {
		if err := write(in, slow, 100_000); err != nil || !in.Stored() {
			t.Error("the slow commit:", err, in.Stored())
		}
	}, func() {
		othersGoOn(t, s, held)
		if in.Offset() != 300_000 || !in.Keeping() || in.Stored() {
			t.Error("the ingest:", in.Offset(), in.Keeping(), in.Stored())
		}
		var err error
		if follower, err = in.Follow(t.Context()); err != nil {
			t.Fatal(err)
		}
		var out gate
		if _, err := follower.Send(t.Context(), &out, 0, 300_000-HoldBack); err != nil || same(out.buf.Bytes(), slow.content[:300_000-HoldBack]) != nil {
			t.Error("the follower:", err)
		}
	})
	var out gate
	if _, err := follower.Send(t.Context(), &out, 0, -1); err != nil || same(out.buf.Bytes(), slow.content) != nil {
		t.Error("after the commit:", err)
	}
	if err := follower.Close(); err != nil {
		t.Error(err)
	}
	tidy(t, s)
}

func TestSlowUnlinkHoldsUpNobody(t *testing.T) {
	t.Parallel()
	victim, held, next := newSample(710, 300_000), newSample(711, 200_000), newSample(712, 300_000)
	for name, tt := range map[string]struct {
		what string
		slow func(t *testing.T, s *Store)
	}{
		"of an evicted blob": {mustName(victim).path(), func(t *testing.T, s *Store) { keep(t, s, next) }},
		"of an ingest that failed": {"tmp/", func(t *testing.T, s *Store) {
			in := begin(t, s, next)
			in.SetSize(300_000)
			in.Abort(errCut)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newStall("remove", "never")
			s := start(t, t.TempDir(), Options{Bound: 700_000, Fault: func(op, name string) error { return st.fault(op, name) }})
			keep(t, s, victim)
			keep(t, s, held)
			st.name = tt.what
			st.during(func() { tt.slow(t, s) }, func() {
				want(t, s, held)
				if _, ok, _ := s.Known(held.digest); !ok {
					t.Error("Known does not know", held.digest)
				}
				if s.Size() > 700_000 {
					t.Error(s.Size(), "bytes count")
				}
			})
			tidy(t, s)
		})
	}
}

// A blob on its way in waits for files that others remove, but not for ever.
func TestSlowUnlinkIsNotAwaitedForEver(t *testing.T) {
	t.Parallel()
	victim, next, other := newSample(720, 300_000), newSample(721, 300_000), newSample(722, 100_000)
	st := newStall("remove", mustName(victim).path())
	bubble(t, Options{Bound: 300_000, Fault: st.fault}, func(t *testing.T, s *Store) {
		st.release = make(chan struct{}) // of the bubble
		st.reached = make(chan struct{})
		keep(t, s, victim)
		st.during(func() { fill(t, s, next).Stored() }, func() {
			began := time.Now()
			in := begin(t, s, other)
			in.SetSize(100_000)
			if took := time.Since(began); in.Keeping() || took > roomPatience {
				t.Error("waited", took, "keeping:", in.Keeping())
			}
			in.Abort(nil)
		})
		synctest.Wait()
	})
}

func TestSlowTagHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	held := newSample(730, 200_000)
	s := start(t, t.TempDir(), Options{})
	st := newStall("rename", placesOf(t, s).of("slow"))
	s = restart(t, s, Options{Fault: st.fault})
	keep(t, s, held)
	first, last := digest.FromString("first"), digest.FromString("last")
	var second sync.WaitGroup
	st.during(func() { s.SetTag(Tag{Key: "slow", Digest: first}) }, func() {
		othersGoOn(t, s, held)
		second.Go(func() { s.SetTag(Tag{Key: "slow", Digest: last}) }) // waits for its turn
	})
	second.Wait()
	s = restart(t, s, Options{})
	if tag, ok := s.Tag("slow"); !ok || tag.Digest != last {
		t.Error("the tag told last is not the one on disk:", tag, ok)
	}
}

func TestSlowReadHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	held, slow := newSample(740, 200_000), newSample(741, 300_000)
	dir := t.TempDir()
	s := start(t, dir, Options{})
	keep(t, s, held)
	keep(t, s, slow)
	settleTime(t, s, slow, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	st := newStall("read", mustName(slow).path())
	st.name += "\x00" // not yet
	s = start(t, dir, Options{Fault: func(op, name string) error { return st.fault(op, name+"\x00") }})
	st.during(func() { want(t, s, slow) }, func() {
		othersGoOn(t, s, held)
		blob, err := s.Open(slow.digest)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errCut)
		if _, err := blob.Send(ctx, discard{}, 0, -1); err == nil {
			t.Error("a reader whose context has ended reads on")
		}
		if err := blob.Close(); err != nil {
			t.Error(err)
		}
	})
	tidy(t, s)
}

func TestKnownReadsNoDisk(t *testing.T) {
	t.Parallel()
	held := newSample(750, 200_000)
	s := start(t, t.TempDir(), Options{})
	keep(t, s, held)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	st := newStall("list", "blobs/sha256")
	calls := 0
	s = open(s.dir, Options{Fault: func(op, name string) error {
		if strings.HasPrefix(name, mustName(held).path()) {
			calls++
		}
		return st.fault(op, name)
	}}, tendInterval)
	defer func() { _ = s.Close() }()
	<-st.reached
	if _, ok, sure := s.Known(held.digest); ok || sure || calls != 0 {
		t.Errorf("before the listing: %v, sure: %v, %d file calls", ok, sure, calls)
	}
	if size, ok := s.Stat(held.digest); !ok || size != 200_000 || calls == 0 {
		t.Errorf("Stat: %d, %v, %d file calls", size, ok, calls)
	}
	if h, ok, sure := s.Known(held.digest); !ok || !sure || h.Size != 200_000 || h.Registry != registry {
		t.Errorf("after Stat: %+v, %v, sure: %v", h, ok, sure)
	}
	close(st.release)
}

// A commit that is slow while its directory is lost adds nothing to the next.
func TestCommitIntoALostDirectoryDoesNotCount(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	slow := newSample(760, 300_000)
	st := newStall("rename", mustName(slow).path())
	s := start(t, base+"/cache", Options{Fault: st.fault})
	in := begin(t, s, slow)
	in.stream.expectNobody()
	st.during(func() {
		if err := write(in, slow, 100_000); err != nil || in.Stored() {
			t.Error("a blob was kept in a directory that is lost:", err, in.Stored())
		}
	}, func() {
		if err := errors.Join(os.Rename(base+"/cache", base+"/away"), os.Mkdir(base+"/cache", 0o700)); err != nil {
			t.Fatal(err)
		}
		s.care.tend(t.Context())
	})
	wantGone(t, s, slow)
	if s.Size() != 0 {
		t.Errorf("%d bytes count", s.Size())
	}
	keep(t, s, slow)
	want(t, s, slow)
}
