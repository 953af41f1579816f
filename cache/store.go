package cache

import (
	"context"
	"errors"
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

	disk   atomic.Pointer[disk] // nil: without a disk
	listed chan struct{}        // closed when the directory is in the index
	broken atomic.Pointer[error]

	committing sync.Mutex // one blob at a time takes its names
	stop       context.CancelFunc
	wg         sync.WaitGroup
	tags       tags
}

// Open returns the store in dir, which it makes if need be, and serves at once:
// the directory is listed in the background. A directory that can't be used, or
// is used by another process, is no error: the store works without it, says so
// by Health, and tries again every few seconds. Close it.
func Open(dir string, opts Options) *Store {
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
		dir: dir, opts: opts, log: opts.Log.With("cache_dir", dir), stop: stop,
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
		select {
		case <-ctx.Done():
			return
		case <-time.After(remount):
			unmounted = s.mount() != nil
		}
	}
	s.list(ctx)
	close(s.listed)
}

// mount opens the directory.
func (s *Store) mount() error {
	d, err := openDisk(s.dir, s.opts.Fault)
	s.noteHealth(err)
	if err == nil {
		s.disk.Store(d)
	}
	return err
}

// Health returns nil, or why the store can't keep blobs.
func (s *Store) Health() error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// noteHealth remembers how the last attempt to write ended.
func (s *Store) noteHealth(err error) {
	if err == nil {
		s.broken.Store(nil)
		return
	}
	s.broken.Store(&err)
}

// Close ends the store. Blobs that are still open stay readable; ingests
// under way are not kept.
func (s *Store) Close() error {
	s.stop()
	s.wg.Wait()
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
	if b, ok := s.fromMemory(n.key); ok {
		return b, nil
	}
	return s.fromDisk(n)
}

// fromMemory opens a small blob that memory holds and the index knows.
func (s *Store) fromMemory(k key) (*memoryBlob, bool) {
	b, ok := s.small.get(k)
	if !ok {
		return nil, false
	}
	held, note := s.index.use(k, time.Now())
	if !held {
		s.small.remove(k)
		return nil, false
	}
	if note {
		s.noteUse(b.path)
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
	i, e, p, ok := s.index.acquire(n.key)
	if !ok && s.adopt(d, n) {
		i, e, p, ok = s.index.acquire(n.key)
	}
	if !ok {
		return nil, ErrNotFound
	}
	b, err := s.openFile(d, n, i, e, p)
	if err != nil {
		s.index.leave(i, time.Now())
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
	f, err := d.open(n.path())
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			s.expel(d, i)
		}
		return nil, errors.Join(ErrNotFound, err)
	}
	id, _, err := identify(f)
	if err != nil || id.size != e.size {
		s.expel(d, i)
		return nil, errors.Join(ErrNotFound, err, f.Close())
	}
	return &fileBlob{store: s, disk: d, name: n, slot: i, pin: p, file: f, size: e.size}, nil
}

// remember reads a small blob whole, checked, and keeps it in memory.
func (s *Store) remember(b *fileBlob, n name) (Blob, error) {
	defer func() { _ = b.Close() }() // nothing was written to it
	m, err := b.content()
	if err != nil {
		return nil, errors.Join(ErrNotFound, err)
	}
	s.small.put(n.key, m)
	return m, nil
}

// adopt puts a blob that the listing has not come to yet into the index. It
// reports whether there is one.
func (s *Store) adopt(d *disk, n name) bool {
	select {
	case <-s.listed:
		return false
	default:
	}
	m, _, err := readMeta(d, n)
	if err != nil {
		return false
	}
	f, err := d.open(n.path())
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // only looked at
	id, _, err := identify(f)
	if err != nil || id.size != m.Size {
		return false
	}
	s.index.insert(n, m.Registry, m.Size, identity{}, 0, false)
	return true
}

// readMeta reads what lies beside a blob.
func readMeta(d *disk, n name) (*meta, []byte, error) {
	raw, err := d.read(n.path() + ".meta")
	if err != nil {
		return nil, nil, err
	}
	m, err := decodeMeta(raw)
	return m, raw, err
}

// Stat returns the size of the blob that d names and the media type it has as
// a manifest ("" if it came as a blob), without counting as use.
func (s *Store) Stat(d digest.Digest) (size int64, ok bool) {
	n, err := nameOf(d)
	if err != nil {
		return 0, false
	}
	if e, ok := s.index.look(n.key); ok {
		return e.size, true
	}
	disk := s.disk.Load()
	if disk == nil || !s.adopt(disk, n) {
		return 0, false
	}
	e, ok := s.index.look(n.key)
	return e.size, ok
}

// expel takes a blob that is not what it should be out of the shard. It
// reports whether it was this call that did.
func (s *Store) expel(d *disk, i int32) bool {
	n := s.index.nameOf(i)
	if !s.index.expel(i) {
		return false
	}
	s.small.remove(n.key)
	s.log.Warn("blob leaves the shard", "digest", n.digest().String(), "reason", "damaged or missing")
	s.removeFiles(d, []int32{i})
	return true
}

// removeFiles removes the files of blobs that the index has let go, and
// reports whether all are gone.
func (s *Store) removeFiles(d *disk, slots []int32) error {
	var errs []error
	for _, i := range slots {
		n := s.index.nameOf(i)
		s.small.remove(n.key)
		if err := d.remove(n.path()); err != nil {
			s.index.stuck(i)
			errs = append(errs, err)
			continue
		}
		if err := d.remove(n.path() + ".meta"); err != nil {
			s.log.Debug("meta left behind until the next start", "error", err)
		}
		s.index.gone(i)
	}
	return errors.Join(errs...)
}

// makeRoom reserves n bytes for a registry and removes what has to go for it.
func (s *Store) makeRoom(d *disk, registry string, n int64) error {
	if err := s.waitListed(); err != nil {
		return err
	}
	victims, err := s.index.reserve(registry, n)
	if err != nil {
		return err
	}
	if err := s.removeFiles(d, victims); err != nil {
		s.index.release(registry, n)
		s.noteHealth(err)
		return err
	}
	return nil
}

// listPatience is how long a blob on its way in waits for the listing of the
// directory: until then nobody knows how much room there is.
const listPatience = 2 * time.Second

// waitListed waits until the directory is listed, but not for ever.
func (s *Store) waitListed() error {
	select {
	case <-s.listed:
		return nil
	default:
	}
	t := time.NewTimer(listPatience)
	defer t.Stop()
	select {
	case <-s.listed:
		return nil
	case <-t.C:
		return errNoRoom
	}
}

// noteUse tells the disk that a blob was read, for the order after a restart.
func (s *Store) noteUse(path string) {
	d := s.disk.Load()
	if d == nil {
		return
	}
	if err := d.used(path, time.Now()); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, os.ErrClosed) {
		s.log.Debug("use not noted", "error", err)
	}
}

// Listed waits until the whole directory is in the index, for tests and stats.
func (s *Store) Listed(ctx context.Context) error {
	select {
	case <-s.listed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stats are figures of one registry's share.
type Stats struct {
	Items     int64  // blobs
	Bytes     int64  // of their content
	Bound     int64  // of the share, or of the store where the share has none
	Evictions uint64 // since start
}

// Stats returns the figures of each registry that has a share.
func (s *Store) Stats() map[string]Stats {
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make(map[string]Stats, len(x.shares))
	for _, sh := range x.shares {
		bound := sh.room.bound
		if bound == 0 {
			bound = x.room.bound
		}
		out[sh.name] = Stats{Items: sh.items, Bytes: sh.room.used, Bound: bound, Evictions: sh.evictions}
	}
	return out
}

// Size returns the bytes that count towards the bound now: blobs, and room
// reserved for what is on its way in.
func (s *Store) Size() int64 {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	return s.index.room.used + s.index.room.reserved
}

// Bound returns the bound of the whole store in bytes, 0 where there is none.
func (s *Store) Bound() int64 { return s.opts.Bound }
