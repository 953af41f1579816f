package cache

import (
	"context"
	"errors"
	"log/slog"
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
}

// list puts the disk's blobs into the index, in the order of their last use, and
// returns how many it found. It fails if it may have missed one.
func (l *lister) list(ctx context.Context) (int, error) {
	var all []found
	var errs []error
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		blobs, err := l.listAlgorithm(ctx, alg)
		all, errs = append(all, blobs...), append(errs, err)
	}
	slices.SortStableFunc(all, func(a, b found) int { return b.used.Compare(a.used) })
	for _, f := range all {
		l.index.append(f)
	}
	return len(all), errors.Join(errs...)
}

// listAlgorithm lists the blobs of one digest algorithm.
func (l *lister) listAlgorithm(ctx context.Context, alg digest.Algorithm) ([]found, error) {
	base := "blobs/" + alg.String()
	dirs, err := l.disk.list("list", base)
	if err != nil {
		return nil, err
	}
	var all []found
	var errs []error
	for _, dir := range dirs {
		if err := ctx.Err(); err != nil {
			return all, err
		}
		if !dir.IsDir() || len(dir.Name()) != 2 {
			l.leftover(base + "/" + dir.Name())
			continue
		}
		blobs, err := l.listDirectory(ctx, alg, base+"/"+dir.Name())
		all, errs = append(all, blobs...), append(errs, err)
	}
	return all, errors.Join(errs...)
}

// listDirectory lists one of the 256 directories.
func (l *lister) listDirectory(ctx context.Context, alg digest.Algorithm, dir string) ([]found, error) {
	files, err := l.disk.list("list", dir)
	if err != nil {
		return nil, err
	}
	var all []found
	var errs []error
	for _, file := range files {
		path := dir + "/" + file.Name()
		base, isMeta := strings.CutSuffix(path, ".meta")
		n, err := nameOf(digest.NewDigestFromEncoded(alg, base[len(dir)+1:]))
		switch {
		case err != nil || n.path() != base || !file.Type().IsRegular():
			l.leftover(path)
		case isMeta:
			errs = append(errs, l.orphan(ctx, n))
		default:
			f, err := l.listBlob(ctx, n)
			errs = append(errs, err)
			if f.name == n {
				all = append(all, f)
			}
		}
	}
	return all, errors.Join(errs...)
}

// listBlob looks at one blob's file and meta. Without a meta that fits, nobody
// could tell whether the bytes are right: the blob is removed.
func (l *lister) listBlob(ctx context.Context, n name) (found, error) {
	f, m, err := findBlob(l.disk, n)
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
func findBlob(d *disk, n name) (found, *meta, error) {
	m, err := d.readMeta(n)
	if err != nil {
		return found{}, nil, err
	}
	f, err := d.open(n.path())
	if err != nil {
		return found{}, nil, err
	}
	defer func() { _ = f.close() }() // only looked at
	id, used, err := f.identify()
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
