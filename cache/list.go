package cache

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// A found blob is one that the listing came across.
type found struct {
	name     name
	registry string
	size     int64
	used     time.Time
}

// list puts the directory's blobs into the index, in the order of their last
// use, removes what is no blob, and shrinks to the bound.
func (s *Store) list(ctx context.Context) {
	d := s.disk.Load()
	start := time.Now()
	var all []found
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		all = append(all, s.listAlgorithm(ctx, d, alg)...)
	}
	slices.SortStableFunc(all, func(a, b found) int { return cmp.Compare(b.used.UnixNano(), a.used.UnixNano()) })
	for _, f := range all {
		s.index.append(f.name, f.registry, f.size, f.used)
	}
	if err := s.removeFiles(d, s.index.shrink()); err != nil {
		s.noteHealth(err)
	}
	s.log.Info("cache directory listed", "blobs", len(all), "took", time.Since(start).Round(time.Millisecond))
}

// listAlgorithm lists the blobs of one digest algorithm.
func (s *Store) listAlgorithm(ctx context.Context, d *disk, alg digest.Algorithm) []found {
	var all []found
	base := "blobs/" + alg.String()
	dirs, err := fs.ReadDir(d.root.FS(), base)
	if err != nil {
		s.noteHealth(err)
	}
	for _, dir := range dirs {
		if ctx.Err() != nil {
			return all
		}
		all = append(all, s.listDirectory(d, alg, base+"/"+dir.Name())...)
	}
	return all
}

// listDirectory lists one of the 256 directories.
func (s *Store) listDirectory(d *disk, alg digest.Algorithm, dir string) []found {
	files, err := fs.ReadDir(d.root.FS(), dir)
	if err != nil {
		s.noteHealth(err)
		return nil
	}
	var all []found
	for _, file := range files {
		base, isMeta := strings.CutSuffix(file.Name(), ".meta")
		n, err := nameOf(digest.NewDigestFromEncoded(alg, base))
		switch {
		case err != nil || n.path() != dir+"/"+base:
			s.leftover(d, dir+"/"+file.Name())
		case isMeta:
			s.orphan(d, n)
		default:
			if f, ok := s.findBlob(d, n); ok {
				all = append(all, f)
			}
		}
	}
	return all
}

// findBlob looks at one blob's file and meta. Without a meta that fits, nobody
// could tell whether the bytes are right: it goes.
func (s *Store) findBlob(d *disk, n name) (found, bool) {
	m, _, err := readMeta(d, n)
	if err == nil {
		var f found
		if f, err = stat(d, n, m); err == nil {
			return f, true
		}
	}
	if !errors.Is(err, errMeta) && !errors.Is(err, fs.ErrNotExist) {
		return found{}, false // the disk has a bad moment
	}
	s.committing.Lock()
	defer s.committing.Unlock()
	if _, known := s.index.look(n.key); known {
		return found{}, false // it entered just now
	}
	s.leftover(d, n.path())
	s.leftover(d, n.path()+".meta")
	return found{}, false
}

// stat compares a blob's file with its meta.
func stat(d *disk, n name, m *meta) (found, error) {
	f, err := d.open(n.path())
	if err != nil {
		return found{}, err
	}
	defer func() { _ = f.Close() }() // only looked at
	id, used, err := identify(f)
	if err != nil {
		return found{}, err
	}
	if id.size != m.Size {
		return found{}, errMeta
	}
	return found{name: n, registry: m.Registry, size: m.Size, used: used}, nil
}

// orphan removes a meta whose blob is not there. A commit puts the meta in
// place just before the blob; one that is under way is not an orphan.
func (s *Store) orphan(d *disk, n name) {
	s.committing.Lock()
	defer s.committing.Unlock()
	f, err := d.open(n.path())
	if err == nil {
		_ = f.Close() // only looked at
		return
	}
	if errors.Is(err, fs.ErrNotExist) {
		s.leftover(d, n.path()+".meta")
	}
}

// leftover removes a file that belongs to no blob. The disk being in the way
// is no harm: the next start tries again.
func (s *Store) leftover(d *disk, name string) {
	if err := d.root.RemoveAll(name); err != nil {
		s.log.Debug("leftover stays", "file", name, "error", err)
	}
}
