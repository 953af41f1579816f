package cache

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A notice is a reader that says when its first bytes come.
type notice struct {
	bytes.Buffer
	came func()
}

func (n *notice) Write(p []byte) (int, error) {
	n.came()
	return n.Buffer.Write(p)
}

// noticed reads the whole of in, and returns what tells of its first bytes and what waits for its end.
func noticed(t *testing.T, in *Ingest, b sample) (first <-chan struct{}, end func()) {
	t.Helper()
	came := make(chan struct{})
	n := &notice{came: sync.OnceFunc(func() { close(came) })}
	var wg sync.WaitGroup
	wg.Go(func() {
		blob, err := in.Follow(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := blob.Send(t.Context(), n, 0, -1); err != nil || !bytes.Equal(n.Bytes(), b.content) {
			t.Errorf("%d bytes, %v", n.Len(), err)
		}
		_ = blob.Close()
	})
	joined(t, in, 1)
	return came, wg.Wait
}

// bring brings the whole blob in, which is kept.
func bring(t *testing.T, in *Ingest, b sample) {
	t.Helper()
	in.SetSize(int64(len(b.content)))
	if _, err := in.Write(b.content); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); err != nil || !in.Stored() {
		t.Fatal(err, in.Stored())
	}
}

// Who waits for a large blob gets its first bytes before room is set aside for it, and nothing of
// it is on disk before that.
func TestFirstBytesDoNotWaitForRoom(t *testing.T) {
	t.Parallel()
	var first atomic.Pointer[<-chan struct{}]
	var mu sync.Mutex
	var calls []string
	s := start(t, t.TempDir(), Options{Fault: func(op, _ string) error {
		mu.Lock()
		calls = append(calls, op)
		mu.Unlock()
		if came := first.Load(); op == "allocate" {
			select {
			case <-*came:
			case <-time.After(time.Minute):
				t.Error("the reader waits for room to be set aside")
			}
		}
		return nil
	}})
	b := newSample(4700, growth+100_000)
	in := begin(t, s, b)
	came, end := noticed(t, in, b)
	first.Store(&came)
	bring(t, in, b)
	end()
	want(t, s, b)
	mu.Lock()
	defer mu.Unlock()
	if set, written := slices.Index(calls, "allocate"), slices.Index(calls, "write"); set < 0 || written < set {
		t.Error(calls)
	}
}

// Where nobody waits, it shows at once whether there is room.
func TestRoomIsSetAsideFirstWhereNobodyWaits(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{Fault: fullFor("allocate")})
	b := newSample(4701, growth+1)
	in := begin(t, s, b)
	in.SetSize(int64(len(b.content)))
	if in.Keeping() {
		t.Error("the disk is full, but the blob is to be kept")
	}
	in.Abort(nil)
}

// fullFor lets calls fail as on a full disk that does not say how much room it has.
func fullFor(op string) func(op, name string) error {
	return func(o, name string) error {
		switch o {
		case "statfs":
			return syscall.EIO
		case op:
			return &fs.PathError{Op: o, Path: name, Err: syscall.ENOSPC}
		}
		return nil
	}
}

// A disk that fails after the first bytes of a large blob have been sent costs only speed: the
// reader gets all of it, and nothing stays behind.
func TestFullDiskAfterTheFirstBytes(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"allocate", "write"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			var full atomic.Bool
			fails := fullFor(op)
			s := start(t, t.TempDir(), Options{Fault: func(o, name string) error {
				if full.Load() {
					return fails(o, name)
				}
				return nil
			}})
			old := newSample(4702, 1<<20)
			keep(t, s, old)
			b := newSample(4703, growth+300_000)
			in := begin(t, s, b)
			_, end := noticed(t, in, b)
			in.SetSize(int64(len(b.content)))
			full.Store(true)
			if _, err := in.Write(b.content); err != nil {
				t.Fatal(err)
			}
			if err := in.Commit(); err != nil || in.Stored() {
				t.Error(err, in.Stored())
			}
			end()
			tidy(t, s)
			if op == "allocate" { // too little is held to make room for all of the blob
				want(t, s, old)
			}
			if s.Size() != s.Stats()[registry].Bytes || temporaries(t, s.dir) != 0 {
				t.Errorf("%d bytes count, %d files are left", s.Size(), temporaries(t, s.dir))
			}
		})
	}
}

// If what is held is enough to make room for all of a large blob, it goes, and the blob is kept.
func TestRoomForALargeBlobIsMadeAfterItsFirstBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var small atomic.Bool
	s := start(t, dir, Options{Fault: func(op, name string) error {
		if op == "statfs" || small.Load() && op == "allocate" && usage(t, dir) > 2<<20 {
			return fullFor("allocate")(op, name)
		}
		return nil
	}})
	old := newSample(4704, 12<<20)
	keep(t, s, old)
	small.Store(true)
	b := newSample(4705, growth+300_000)
	in := begin(t, s, b)
	_, end := noticed(t, in, b)
	bring(t, in, b)
	end()
	want(t, s, b)
	wantGone(t, s, old)
}

// The first bytes can be read again when the digest turns out to be another one.
func TestFirstBytesOfAWrongBlobCanBeCompared(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(4706, growth+300_000)
	in := begin(t, s, b)
	defer in.Abort(errors.New("the test has failed"))
	var sent bytes.Buffer
	followed := make(chan Blob, 1)
	go func() {
		defer close(followed)
		blob, err := in.Follow(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := blob.Send(t.Context(), &sent, 0, leadSize); err != nil {
			t.Error(err)
		}
		followed <- blob
	}()
	joined(t, in, 1)
	in.SetSize(int64(len(b.content)))
	wrong := bytes.Clone(b.content)
	wrong[len(wrong)-1]++
	if _, err := in.Write(wrong[:len(wrong)/2]); err != nil {
		t.Fatal(err)
	}
	blob, ok := <-followed // the first bytes are sent
	if !ok {
		return
	}
	defer func() { _ = blob.Close() }()
	if _, err := in.Write(wrong[len(wrong)/2:]); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); !errors.Is(err, ErrDigest) {
		t.Fatal(err)
	}
	again := make([]byte, leadSize)
	if _, err := Rejected(blob).ReadAt(again, 0); err != nil || !bytes.Equal(again, b.content[:leadSize]) || !bytes.Equal(sent.Bytes(), again) {
		t.Error(err, "other bytes")
	}
}
