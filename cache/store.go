package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// Options say what a Store may use. The zero value has no bound.
type Options struct {
	Bound  int64            // bytes of content, on its way in included; 0: no bound
	Shares map[string]int64 // bounds of single registries' shares of it
	Memory int64            // bytes of small blobs kept in memory, 0: 32 MiB
	Verify time.Duration    // how long a chunk counts as right once checked, 0: 24 h
	Log    *slog.Logger     // nil: none

	// Taken, if set, is called each time a directory is taken into use, before
	// anything in it is served: by Open, and by the goroutine that opens a
	// directory which was lost or not there at first. The Folder is in that
	// directory, and is valid until the next call.
	Taken func(*Folder)

	// Fault, for tests, is asked before each file call and fails it.
	Fault func(op, name string) error
}

// A Store is one node's shard. Its methods may be called from any goroutine.
type Store struct {
	dir   string
	opts  Options
	log   *slog.Logger
	index *index
	small *small

	disk     atomic.Pointer[disk] // nil: without a disk
	listed   chan struct{}        // closed when the directory is in the index
	blind    atomic.Bool          // listing the directory failed: it is tried again
	broken   atomic.Pointer[error]
	squeezed atomic.Int64  // unix nanoseconds when the disk was last full
	retry    time.Duration // remount, or less in tests

	committing sync.Mutex // one blob at a time takes its names
	strays     strays
	parts      parts
	tags       tags

	done <-chan struct{} // closed by Close
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// Open returns the store in dir, which it makes if need be, and serves at once:
// the directory is listed in the background. A directory that can't be used, or
// is used by another process, is no error: the store works without it, says so
// by Health, and tries again every few seconds. Close it.
func Open(dir string, opts Options) *Store { return open(dir, opts, remount) }

// open is Open with the time between two tries at the directory.
func open(dir string, opts Options, retry time.Duration) *Store {
	if opts.Memory == 0 {
		opts.Memory = 32 << 20
	}
	if opts.Verify == 0 {
		opts.Verify = 24 * time.Hour
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Store{
		dir: dir, opts: opts, log: opts.Log.With("cache_dir", dir), retry: retry, done: ctx.Done(), stop: stop,
		index: newIndex(opts.Bound, opts.Shares), small: newSmall(opts.Memory), listed: make(chan struct{}),
	}
	err := s.mount()
	if err != nil {
		s.log.Error("serving without a cache", "error", err)
	}
	s.wg.Go(func() { s.run(ctx, err != nil) })
	return s
}

// remount is how often a directory that could not be used is tried again.
const remount = 5 * time.Second

// run mounts the directory if that is still to be done, and lists it.
func (s *Store) run(ctx context.Context, unmounted bool) {
	for unmounted {
		if s.rest(ctx) != nil {
			return
		}
		unmounted = s.mount() != nil
	}
	for {
		err := s.list(ctx, s.disk.Load())
		if ctx.Err() != nil {
			return // what is not listed is not counted: nothing may come in
		}
		if err == nil {
			break
		}
		s.noteHealth(err)
		s.log.Error("cache directory not listed: nothing new is kept", "error", err)
		s.blind.Store(true)
		if s.rest(ctx) != nil {
			return
		}
	}
	if s.blind.Load() {
		s.noteHealth(nil)
	}
	close(s.listed)
	for pause(ctx, nil, remount) == nil {
		s.tend(ctx)
	}
}

// tend looks after what changes while nobody asks: parts grow old, a disk has
// room again, a directory was removed or another put in its place.
func (s *Store) tend(ctx context.Context) {
	s.expire(time.Now())
	d := s.disk.Load()
	if d != nil {
		if err := d.sound(s.dir); err != nil {
			s.unmount(err)
			d = nil
		}
	}
	if d == nil {
		s.mountAgain(ctx)
		return
	}
	s.removeSpoilt(d)
	s.widen(d)
}

// unmount lets the directory go because of err. What it held is gone with it.
func (s *Store) unmount(err error) {
	s.log.Error("cache directory lost", "error", err)
	s.noteHealth(err)
	s.committing.Lock()
	defer s.committing.Unlock()
	d := s.disk.Swap(nil)
	s.index.clear()
	s.small.clear()
	for p := s.parts.take(anyPart); p != nil; p = s.parts.take(anyPart) {
		s.index.release(p.registry, p.bytes)
	}
	if err := d.close(); err != nil {
		s.log.Warn("cache directory not closed", "error", err)
	}
}

// anyPart fits each part.
func anyPart(*part) bool { return true }

// mountAgain opens a directory that was lost, and uses it once it is listed.
func (s *Store) mountAgain(ctx context.Context) {
	d, all, err := s.openDisk()
	if err == nil {
		s.adoptParts(all)
		if err = s.list(ctx, d); err != nil {
			err = errors.Join(err, d.close())
			s.index.clear()
		}
	}
	s.noteHealth(err)
	if err != nil {
		return
	}
	s.use(d)
	s.log.Info("cache directory in use again")
}

// rest waits before the directory is tried again.
func (s *Store) rest(ctx context.Context) error { return pause(ctx, nil, s.retry) }

// mount opens the directory.
func (s *Store) mount() error {
	d, all, err := s.openDisk()
	s.noteHealth(err)
	if err == nil {
		s.adoptParts(all)
		s.use(d)
	}
	return err
}

// use takes an open directory into use.
func (s *Store) use(d *disk) {
	if s.opts.Taken != nil {
		s.opts.Taken(newFolder(d))
	}
	s.disk.Store(d)
}

// openDisk opens the directory and looks for parts.
func (s *Store) openDisk() (*disk, []*part, error) {
	d, err := openDisk(s.dir, s.opts.Fault)
	if err != nil {
		return nil, nil, err
	}
	all, err := d.sweep()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("removing leftovers: %w", err), d.close())
	}
	return d, all, nil
}

// Health returns nil, or why the store can't keep blobs.
func (s *Store) Health() error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	return s.narrowed()
}

// noteHealth remembers how the last attempt to write ended.
func (s *Store) noteHealth(err error) {
	if err == nil {
		s.broken.Store(nil)
		return
	}
	s.broken.Store(&err)
}

// Close ends the store. Blobs that are still open stay readable; what
// is on its way in is not kept but for parts: Abort it before.
func (s *Store) Close() error {
	s.stop()
	s.wg.Wait()
	s.committing.Lock() // once the lock is free the directory is another's
	defer s.committing.Unlock()
	if d := s.disk.Swap(nil); d != nil {
		return d.close()
	}
	return nil
}

// Open returns the blob that d names, or ErrNotFound, and counts as use. Close
// the blob.
func (s *Store) Open(d digest.Digest) (Blob, error) {
	n, err := nameOf(d)
	if err != nil {
		return nil, err
	}
	if b, ok := s.fromMemory(n); ok {
		return b, nil
	}
	return s.fromDisk(n)
}

// fromMemory opens a small blob that memory holds and the index knows.
func (s *Store) fromMemory(n name) (*memoryBlob, bool) {
	b, ok := s.small.get(n)
	if !ok {
		return nil, false
	}
	held, note := s.index.use(n, time.Now())
	if !held {
		s.small.remove(n)
		return nil, false
	}
	if note {
		s.noteUse(b.path, time.Now())
	}
	return b, true
}

// fromDisk opens a blob's file. A digest that the index does not know is tried
// all the same until the directory is listed.
func (s *Store) fromDisk(n name) (Blob, error) {
	d := s.disk.Load()
	if d == nil {
		return nil, ErrNotFound
	}
	i, e, p, ok := s.index.acquire(n)
	if !ok {
		s.adopt(d, n)
		i, e, p, ok = s.index.acquire(n)
	}
	if !ok {
		return nil, ErrNotFound
	}
	b, err := s.openFile(d, n, i, e, p)
	if err != nil {
		s.leave(i, n.path())
		return nil, err
	}
	if b.size > smallSize {
		return b, nil
	}
	return s.remember(b, n)
}

// openFile opens the file of the pinned entry e. One that is not as it should
// be leaves the shard.
func (s *Store) openFile(d *disk, n name, i int32, e entry, p *pin) (*fileBlob, error) {
	b := &fileBlob{store: s, disk: d, name: n, slot: i, pin: p, size: e.size}
	var err error
	if b.file, err = d.open(n.path()); err != nil {
		return nil, b.lost(err)
	}
	if err := b.prepare(); err != nil {
		return nil, errors.Join(b.lost(err), b.file.Close())
	}
	return b, nil
}

// remember reads a small blob whole, checked, and keeps it in memory.
func (s *Store) remember(b *fileBlob, n name) (Blob, error) {
	defer func() { _ = b.Close() }() // nothing was written to it
	m, err := b.content()
	if err != nil {
		return nil, err
	}
	s.small.put(n, m)
	return m, nil
}

// adopt puts a blob that the listing has not come to yet into the index. It may
// be there already when adopt returns, by the listing.
func (s *Store) adopt(d *disk, n name) {
	select {
	case <-s.listed:
		return
	default:
	}
	s.committing.Lock()
	defer s.committing.Unlock()
	if f, err := findBlob(d, n); err == nil {
		s.index.append(f.name, f.registry, f.size, f.used)
	}
}

// readMeta reads what lies beside a blob, or says errMeta.
func readMeta(d *disk, n name) (*meta, error) {
	raw, err := d.read(n.path() + ".meta")
	if err != nil {
		return nil, err
	}
	m, err := decodeMeta(raw)
	if err == nil && m.Digest != n.digest() {
		err = errMeta // another blob's
	}
	return m, err
}

// Stat returns the size in bytes of the blob that d names, if the shard has it,
// without counting as use.
func (s *Store) Stat(d digest.Digest) (size int64, ok bool) {
	n, err := nameOf(d)
	if err != nil {
		return 0, false
	}
	if e, ok := s.index.look(n); ok {
		return e.size, true
	}
	if disk := s.disk.Load(); disk != nil {
		s.adopt(disk, n)
	}
	e, ok := s.index.look(n)
	return e.size, ok
}

// noteUse tells the disk when a blob was read, for the order after a restart.
func (s *Store) noteUse(path string, at time.Time) {
	d := s.disk.Load()
	if d == nil {
		return
	}
	if err := d.used(path, at); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, os.ErrClosed) {
		s.log.Debug("use not noted", "error", err)
	}
}

// Listed waits until the whole directory is in the index, for tests and stats.
func (s *Store) Listed(ctx context.Context) error {
	select {
	case <-s.listed:
		return nil
	default:
	}
	select {
	case <-s.listed:
		return nil
	case <-s.done:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
