package cache

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// A listing tells whether the index has all that the directory holds. Until then
// nobody knows how much room there is.
type listing struct {
	done   chan struct{} // closed when the directory is listed
	late   chan struct{} // closed when that takes longer than listPatience
	failed atomic.Bool   // listing it failed; it is tried again
	closed <-chan struct{}
}

// errClosed: the store was closed.
var errClosed = errors.New("the cache is closed")

// listPatience is how long after the listing began blobs on their way in wait for
// its end. Most directories are listed by then. Otherwise blobs pass through memory
// until the directory is listed.
const listPatience = 2 * time.Second

// begin says that listing begins.
func (l *listing) begin() { time.AfterFunc(listPatience, func() { close(l.late) }) }

// ended reports whether the directory is listed.
func (l *listing) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// wait waits until the directory is listed.
func (l *listing) wait(ctx context.Context) error {
	if l.ended() {
		return nil
	}
	select {
	case <-l.done:
		return nil
	case <-l.closed:
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// waitBriefly is wait for a blob on its way in.
func (l *listing) waitBriefly() error {
	if l.ended() {
		return nil
	}
	if l.failed.Load() {
		return errNoRoom
	}
	select {
	case <-l.done:
		return nil
	case <-l.late:
		return errNoRoom
	case <-l.closed:
		return errClosed
	}
}

// A found blob is one that the listing came across.
type found struct {
	name     name
	registry string
	size     int64
	used     time.Time
	manifest bool
}

// A lister lists the blobs of a disk. It removes files that belong to no blob.
type lister struct {
	log     *slog.Logger
	disk    *disk
	index   *index
	commits *turns[key]
	// outlined is as in Options.
	outlined func(Label)
	found    int // blobs so far
}

// list puts the disk's blobs into the index, in the order of their last use, and
// returns how many it found. It fails if it may have missed one.
func (l *lister) list(ctx context.Context) (int, error) {
	var all []use
	var errs []error
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		blobs, err := l.listAlgorithm(ctx, alg)
		all, errs = append(all, blobs...), append(errs, err)
	}
	slices.SortStableFunc(all, func(a, b use) int { return cmp.Compare(b.used, a.used) })
	for some := range slices.Chunk(all, placeBatch) {
		l.index.rank(some)
	}
	return l.found, errors.Join(errs...)
}

// listAlgorithm lists the blobs of one digest algorithm.
func (l *lister) listAlgorithm(ctx context.Context, alg digest.Algorithm) ([]use, error) {
	base := "blobs/" + alg.String()
	dirs, err := entriesOf(&l.disk.root, base)
	if err != nil {
		return nil, err
	}
	var all []use
	var errs []error
	for _, dir := range dirs {
		if !dir.IsDir() || len(dir.Name()) != 2 {
			l.leftover(base + "/" + dir.Name())
			continue
		}
		blobs, err := l.listDirectory(ctx, alg, base+"/"+dir.Name())
		all, errs = append(all, blobs...), append(errs, err)
		if err := ctx.Err(); err != nil {
			return all, err
		}
	}
	return all, errors.Join(errs...)
}

// listDirectory lists one of the 256 directories. Each blob is in the index at once, and in
// the order of use once all are known.
func (l *lister) listDirectory(ctx context.Context, alg digest.Algorithm, dir string) (all []use, _ error) {
	files, err := entriesOf(&l.disk.root, dir)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	err = inside(&l.disk.root, dir+"/"+files[0].Name(), func(open int, _ string) (err error) {
		all, err = l.listFiles(ctx, alg, dir, open, files)
		return err
	})
	return all, err
}

// listFiles looks at the files of an open directory.
func (l *lister) listFiles(ctx context.Context, alg digest.Algorithm, dir string, open int, files []fs.DirEntry) ([]use, error) {
	all := make([]use, 0, (len(files)+1)/2)
	var errs []error
	var whole name // the last blob found
	for _, file := range files {
		if ctx.Err() != nil {
			return all, ctx.Err()
		}
		runtime.Gosched() // a request that has come meanwhile goes first
		name := dir + "/" + file.Name()
		base, isMeta := strings.CutSuffix(name, ".meta")
		n, err := nameOf(digest.NewDigestFromEncoded(alg, base[len(dir)+1:]))
		switch {
		case err != nil || n.path() != base || !file.Type().IsRegular():
			l.leftover(name)
		case isMeta && n == whole: // it comes right after its blob
		case isMeta:
			errs = append(errs, l.orphan(ctx, n))
		default:
			f, err := l.listBlob(ctx, open, n)
			errs = append(errs, err)
			if f.name != n {
				continue
			}
			l.found, whole = l.found+1, n
			if slot := l.index.discover(f); slot != none {
				all = append(all, use{uint64(max(f.used.UnixNano(), 0)), slot})
			}
		}
	}
	return all, errors.Join(errs...)
}

// listBlob looks at one blob's file and meta. Without a meta that fits, nobody
// could tell whether the bytes are right: the blob is removed.
func (l *lister) listBlob(ctx context.Context, open int, n name) (found, error) {
	f, m, err := findIn(&l.disk.root, open, n)
	if err == nil && m.Outline != nil {
		l.outlined(m.label())
	}
	if err == nil || transient(err) {
		return f, err
	}
	end, err := l.commits.take(ctx, n.key)
	if err != nil {
		return found{}, err
	}
	defer end()
	if _, _, known := l.index.look(n); known {
		return found{}, nil // opener.adopt was faster
	}
	l.leftover(n.path())
	l.leftover(n.path() + ".meta")
	return found{}, nil
}

// findBlob compares a blob's file with its meta.
func findBlob(d *disk, n name) (f found, m *meta, err error) {
	err = inside(&d.root, n.path(), func(dir int, _ string) (err error) {
		f, m, err = findIn(&d.root, dir, n)
		return err
	})
	return f, m, err
}

// findIn is findBlob in an open directory.
func findIn(r *root, dir int, n name) (found, *meta, error) {
	path := n.path()
	raw, err := readIn(r, dir, path+".meta")
	if err != nil {
		return found{}, nil, err
	}
	m, err := metaOf(raw, n)
	if err != nil {
		return found{}, nil, err
	}
	id, used, err := identifyIn(r, dir, path)
	if err != nil {
		return found{}, nil, err
	}
	if id.size != m.Size {
		return found{}, nil, errMeta
	}
	return found{name: n, registry: m.Registry, size: m.Size, used: used, manifest: m.MediaType != ""}, m, nil
}

// orphan removes a meta whose blob is not there. A commit puts the meta in place
// just before the blob, so it waits for one that runs.
func (l *lister) orphan(ctx context.Context, n name) error {
	end, err := l.commits.take(ctx, n.key)
	if err != nil {
		return err
	}
	defer end()
	if !l.disk.exists(n.path()) {
		l.leftover(n.path() + ".meta")
	}
	return nil
}

// leftover removes a file that belongs to no blob. If it can't be removed the
// next start tries again.
func (l *lister) leftover(name string) {
	if err := l.disk.removeAll(name); err != nil {
		l.log.Debug("file that belongs to no blob not removed", "file", name, "error", err)
	}
}
