package cache

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Options say what a Store may use. The zero value has no bound.
type Options struct {
	Bound  int64            // bytes of content, on its way in included; 0: no bound
	Shares map[string]int64 // bounds of single registries' shares of it
	Memory int64            // bytes of small blobs kept in memory, 0: 8 MiB
	Verify time.Duration    // how long a checked chunk counts as right, 0: 24 h
	Log    *slog.Logger     // nil: none

	// Group, if set, says with whom a registry shares places for tags. It is called
	// often. Nil: each registry is by itself.
	Group func(registry string) Group

	// MaxIdle, if set, says how long content of a registry stays that nobody asks for; 0: for
	// ever. It is called every few seconds, with "" for registries that share the place of all
	// others. Nil: for ever.
	MaxIdle func(registry string) time.Duration

	// Windows bound the memory for blobs that have no place on disk. nil: 8 MiB for
	// this store alone.
	Windows *Windows

	// Taken, if set, is called each time a directory is taken into use, before
	// anything in it is served: by Open, and by the goroutine that opens a
	// directory which was lost or not there at first. The Folders are in that
	// directory, and are valid until the next call.
	Taken func(Folders)

	// Outline, if set, says what is noted of a blob's content beside it, as JSON; nil: nothing.
	// It is called for each blob of 64 KiB at most that enters the shard, with mediaType ""
	// unless it is a manifest. More than some 4,000 bytes are not noted.
	Outline func(mediaType string, content []byte) []byte

	// Outlined, if set, hears of each outline: when its blob enters the shard, and when the
	// listing finds it.
	Outlined func(l Label)

	// Fault, for tests, is asked before each file call and fails it.
	Fault func(op, name string) error
}

// A Store is one node's shard. Its methods may be called from any goroutine.
type Store struct {
	dir   string
	shard *shard
	tags  *tags
	stock *Stock
	care  *caretaker

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// Open returns the store in dir, and makes dir if need be. The store serves at once;
// the directory is listed in the background. It is no error if the directory can't
// be used, or is used by another process: the store works without it, Health says
// so, and it tries again every few seconds. Close it.
func Open(dir string, opts Options) *Store { return open(dir, opts, tendInterval) }

// open is Open with the time between two tries at the directory.
func open(dir string, opts Options, retry time.Duration) *Store {
	opts = opts.withDefaults()
	log := opts.Log.With("cache_dir", dir)
	ctx, stop := context.WithCancel(context.Background())
	shard := newShard(log, opts, ctx.Done())
	s := &Store{
		dir: dir, shard: shard, tags: newTags(log, shard.dir, opts.Group), stop: stop,
		stock: &Stock{shard, newTagFiles()},
		care:  &caretaker{shard: shard, path: dir, fault: opts.Fault, taken: opts.Taken, maxIdle: opts.MaxIdle, retry: retry},
	}
	s.care.free.Store(-1)
	err := s.care.open()
	if err != nil {
		log.Error("cache directory can't be used: serving without a cache; trying again", "error", err)
	}
	s.wg.Go(func() { s.care.run(ctx, err == nil) })
	return s
}

// closePatience is how long Close waits for blobs that are just being put in place.
const closePatience = 5 * time.Second

// Close ends the store. Blobs that are open stay readable. Blobs on their way in are
// not kept, apart from parts: Abort them before.
func (s *Store) Close() error {
	s.stop()
	s.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	s.shard.commits.close(ctx) // after that another process may use the directory
	if d := s.shard.dir.take(nil); d != nil {
		return d.close()
	}
	return nil
}

// Health returns nil, or why the store can't keep blobs.
func (s *Store) Health() error {
	if err := s.shard.dir.health(); err != nil {
		return err
	}
	return s.shard.pressure.health()
}

// Listed waits until the whole directory is in the index.
func (s *Store) Listed(ctx context.Context) error { return s.shard.listing.wait(ctx) }

// Open returns the blob that d names, or ErrNotFound, and counts as use. It may
// read the disk. Close the blob.
func (s *Store) Open(d digest.Digest) (Blob, error) {
	n, err := nameOf(d)
	if err != nil {
		return nil, err
	}
	return s.shard.opener.open(n)
}

// Known returns what the index knows of the blob that d names, without counting as
// use. It never reads the disk. sure reports whether the disk has no more to tell:
// until the directory is listed the index may miss a blob that is there, and it does
// not always know which registry brought one. See [Store.Stat] and [Store.Origin].
func (s *Store) Known(d digest.Digest) (h Held, ok, sure bool) {
	n, err := nameOf(d)
	if err != nil {
		return Held{}, false, true
	}
	e, registry, ok := s.shard.index.look(n)
	if !ok {
		return Held{}, false, s.shard.listing.ended()
	}
	return Held{Digest: d, Registry: registry, Size: e.size}, true, registry != ""
}

// Stat returns the size in bytes of the blob that d names, without counting as use.
// While the directory is being listed it may read the disk, so hold no lock that
// others wait for.
func (s *Store) Stat(d digest.Digest) (size int64, ok bool) {
	n, err := nameOf(d)
	if err != nil {
		return 0, false
	}
	e, _, ok := s.shard.opener.find(n)
	return e.size, ok
}

// Ingest begins bringing in the blob that d names from a registry. mediaType is that
// of a manifest, "" for a blob. Only an invalid d is an error: without a disk or room
// the blob passes through memory. When ctx ends the ingest no longer waits for
// readers. End it by Commit or Abort.
func (s *Store) Ingest(ctx context.Context, d digest.Digest, registry, mediaType string) (*Ingest, error) {
	n, err := nameOf(d)
	if err != nil {
		return nil, err
	}
	return newIngest(ctx, s.shard, label{name: n, digest: d, registry: registry, mediaType: mediaType}), nil
}
