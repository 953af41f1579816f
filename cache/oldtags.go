package cache

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Kept is the prefix of keys whose tags earlier versions never removed for others.
const Kept = "!"

// oldTagPath is the file of a tag as earlier versions named it: tags/xx/hash.
func oldTagPath(key string) string {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(key)))
	if strings.HasPrefix(key, Kept) {
		return "tags/" + Kept + sum[:2] + "/" + sum
	}
	return "tags/" + sum[:2] + "/" + sum
}

// OldTags calls yield for each tag whose key begins with one of the prefixes.
// Earlier versions kept notes among the tags; this is for reading them over,
// once. It goes on after a file that can't be read, and then returns an error.
// An error of yield ends it.
func (f *Folder) OldTags(prefixes []string, yield func(Tag) error) error {
	dirs, err := f.disk.list("notes", "tags")
	if err != nil {
		return fmt.Errorf("listing the tags: %w", err)
	}
	onlyKept := !slices.ContainsFunc(prefixes, func(p string) bool { return !strings.HasPrefix(p, Kept) })
	var errs []error
	for _, dir := range dirs {
		if !dir.IsDir() || slices.Contains([]string{ownArea.dir, strangerArea.dir}, "tags/"+dir.Name()) || onlyKept && !strings.HasPrefix(dir.Name(), Kept) {
			continue
		}
		unread, err := f.oldTagsIn("tags/"+dir.Name(), prefixes, yield)
		if err != nil {
			return err
		}
		errs = append(errs, unread)
	}
	return errors.Join(errs...)
}

// oldTagsIn is OldTags for one directory. unread says which files could not be
// read; err is yield's.
func (f *Folder) oldTagsIn(dir string, prefixes []string, yield func(Tag) error) (unread, err error) {
	files, err := f.disk.list("notes", dir)
	if err != nil {
		return fmt.Errorf("listing the tags: %w", err), nil
	}
	var errs []error
	for _, file := range files {
		t, err := readTag(&f.disk.root, dir+"/"+file.Name())
		switch {
		case err == nil && dir+"/"+file.Name() != oldTagPath(t.Key):
			continue // it was moved
		case errors.Is(err, errTag) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errForeign):
			continue // no tag of ours
		case err != nil:
			errs = append(errs, fmt.Errorf("reading a tag: %w", err))
			continue
		case !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(t.Key, p) }):
			continue
		}
		if err := yield(t); err != nil {
			return nil, err
		}
	}
	return errors.Join(errs...), nil
}

// RemoveOldTag deletes the file of the tag of that key.
func (f *Folder) RemoveOldTag(key string) error {
	if err := f.disk.remove(oldTagPath(key)); err != nil {
		return fmt.Errorf("removing an old tag: %w", err)
	}
	return nil
}

// WriteOldTag writes a tag as earlier versions did, for tests.
func (f *Folder) WriteOldTag(t Tag) error {
	raw, err := json.Marshal(t)
	if err == nil {
		err = f.disk.writeFile(oldTagPath(t.Key), seal(raw))
	}
	if err != nil {
		return fmt.Errorf("writing an old tag: %w", err)
	}
	return nil
}
