package cache

import (
	"context"
	"errors"
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
// use, removes what is no blob, and shrinks to the bound. It fails if it may
// have missed one.
func (s *Store) list(ctx context.Context, d *disk) error {
	start := time.Now()
	var all []found
	var errs []error
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		blobs, err := s.listAlgorithm(ctx, d, alg)
		all, errs = append(all, blobs...), append(errs, err)
	}
	slices.SortStableFunc(all, func(a, b found) int { return b.used.Compare(a.used) })
	for _, f := range all {
		s.index.found(f)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, registry := range s.parts.registries() {
		s.yield(registry, 0)
	}
	if err := s.removeFiles(d, s.index.shrink()); err != nil {
		return err
	}
	s.log.Info("cache directory listed", "blobs", len(all), "took", time.Since(start).Round(time.Millisecond))
	return nil
}

// listAlgorithm lists the blobs of one digest algorithm.
func (s *Store) listAlgorithm(ctx context.Context, d *disk, alg digest.Algorithm) ([]found, error) {
	base := "blobs/" + alg.String()
	dirs, err := d.list("list", base)
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
			s.leftover(d, base+"/"+dir.Name())
			continue
		}
		blobs, err := s.listDirectory(d, alg, base+"/"+dir.Name())
		all, errs = append(all, blobs...), append(errs, err)
	}
	return all, errors.Join(errs...)
}

// listDirectory lists one of the 256 directories.
func (s *Store) listDirectory(d *disk, alg digest.Algorithm, dir string) ([]found, error) {
	files, err := d.list("list", dir)
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
			s.leftover(d, path)
		case isMeta:
			s.orphan(d, n)
		default:
			f, err := s.listBlob(d, n)
			errs = append(errs, err)
			if f.name == n {
				all = append(all, f)
			}
		}
	}
	return all, errors.Join(errs...)
}

// listBlob looks at one blob's file and meta. Without a meta that fits, nobody
// could tell whether the bytes are right: it goes.
func (s *Store) listBlob(d *disk, n name) (found, error) {
	f, err := findBlob(d, n)
	if err == nil || transient(err) {
		return f, err
	}
	s.committing.Lock()
	defer s.committing.Unlock()
	if _, known := s.index.look(n); known {
		return found{}, nil // it entered just now
	}
	s.leftover(d, n.path())
	s.leftover(d, n.path()+".meta")
	return found{}, nil
}

// findBlob compares a blob's file with its meta.
func findBlob(d *disk, n name) (found, error) {
	m, err := readMeta(d, n)
	if err != nil {
		return found{}, err
	}
	f, err := d.open(n.path())
	if err != nil {
		return found{}, err
	}
	defer func() { _ = f.Close() }() // only looked at
	id, used, err := d.identify(f)
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
	if !d.exists(n.path()) {
		s.leftover(d, n.path()+".meta")
	}
}

// leftover removes a file that belongs to no blob. The disk being in the way
// is no harm: the next start tries again.
func (s *Store) leftover(d *disk, name string) {
	if err := d.removeAll(name); err != nil {
		s.log.Debug("leftover stays", "file", name, "error", err)
	}
}
