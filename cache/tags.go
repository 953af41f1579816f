package cache

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Tag is what a tag meant when upstream was last asked.
type Tag struct {
	Key       string        `json:"key"` // who asked for what: the caller's words, see Kept
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"media_type"`
	Size      int64         `json:"size"`
	Checked   time.Time     `json:"checked"`
}

// tags are the tags used of late, in front of their files.
type tags struct {
	writing sync.Mutex // one file at a time, so that the last one told stays
	mu      sync.Mutex
	byKey   map[string]Tag
	noted   map[string]time.Time // when the file was written
}

// maxTags bounds the tags in memory. The files beyond are read when asked for.
const maxTags = 16 << 10

// tagNoted is for how long a tag that means the same is not written again: its
// file may say that it was checked that much earlier than it was.
const tagNoted = time.Minute

// Kept begins the keys of tags that never go for others: clients can't choose to
// push out any. Where there are too many a new one is not remembered at all.
const Kept = "!"

// maxKept bounds those in each of 256 directories of their own.
const maxKept = 1024

// maxTagFiles bounds the tags in each of 256 directories on disk: 64 Ki of them,
// a page each.
const maxTagFiles = 256

// tagPath is the file of a tag.
func tagPath(key string) string {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(key)))
	if strings.HasPrefix(key, Kept) {
		return "tags/" + Kept + sum[:2] + "/" + sum
	}
	return "tags/" + sum[:2] + "/" + sum
}

// Tag returns what the tag named by key last meant.
func (s *Store) Tag(key string) (Tag, bool) {
	if t, ok := s.tags.get(key); ok {
		return t, true
	}
	s.tags.writing.Lock() // what is told meanwhile is newer than what is read
	defer s.tags.writing.Unlock()
	if t, ok := s.tags.get(key); ok {
		return t, true
	}
	d := s.disk.Load()
	if d == nil {
		return Tag{}, false
	}
	t, err := d.readTag(tagPath(key))
	if err != nil || t.Key != key {
		return Tag{}, false
	}
	s.tags.keep(t)
	return t, true
}

// errTag: a file that holds no tag, or not all of one.
var errTag = errors.New("no tag, or a damaged one")

// readTag reads a tag's file.
func (d *disk) readTag(path string) (t Tag, err error) {
	raw, err := d.read(path)
	if err != nil {
		return Tag{}, err
	}
	raw, ok := unseal(raw)
	if !ok || json.Unmarshal(raw, &t) != nil || t.Digest.Validate() != nil || path != tagPath(t.Key) {
		return Tag{}, errTag
	}
	return t, nil
}

// SetTag remembers what the tag t.Key means, over a restart too.
func (s *Store) SetTag(t Tag) {
	s.tags.writing.Lock()
	defer s.tags.writing.Unlock()
	d := s.disk.Load()
	if d != nil && !d.takes(t.Key) || !s.tags.keep(t) || d == nil {
		return
	}
	raw, err := json.Marshal(t)
	if err == nil {
		err = d.writeFile(tagPath(t.Key), seal(raw))
	}
	if err != nil {
		s.log.Debug("tag not noted on disk", "error", err)
	}
	if strings.HasPrefix(t.Key, Kept) {
		return
	}
	if err := d.thin(path.Dir(tagPath(t.Key)), maxTagFiles); err != nil {
		s.log.Debug("old tags not removed", "error", err)
	}
}

// takes reports whether there is a place for the tag of that key.
func (d *disk) takes(key string) bool {
	if !strings.HasPrefix(key, Kept) || d.exists(tagPath(key)) {
		return true
	}
	entries, err := d.list("list", path.Dir(tagPath(key)))
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) < maxKept
}

// thin removes from a directory of more than n files those that were written
// the longest ago, a quarter at once.
func (d *disk) thin(dir string, n int) error {
	entries, err := d.list("list", dir)
	if err != nil || len(entries) <= n {
		return err
	}
	written := make(map[string]time.Time, len(entries))
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // else it is gone, or the first to go
			written[e.Name()] = info.ModTime()
		}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return written[a.Name()].Compare(written[b.Name()]) })
	var errs []error
	for _, e := range entries[:len(entries)-n+n/4] {
		errs = append(errs, d.removeAll(path.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// ForgetTag forgets the tag named by key.
func (s *Store) ForgetTag(key string) {
	s.tags.writing.Lock()
	defer s.tags.writing.Unlock()
	s.tags.mu.Lock()
	delete(s.tags.byKey, key)
	delete(s.tags.noted, key)
	s.tags.mu.Unlock()
	d := s.disk.Load()
	if d == nil {
		return
	}
	if err := d.remove(tagPath(key)); err != nil {
		s.log.Warn("tag not forgotten on disk", "error", err)
	}
}

// get returns the tag if memory has it.
func (t *tags) get(key string) (Tag, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tag, ok := t.byKey[key]
	return tag, ok
}

// keep remembers t in memory and reports whether its file has to be written.
func (t *tags) keep(tag Tag) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey == nil || len(t.byKey) >= maxTags {
		t.byKey, t.noted = map[string]Tag{}, map[string]time.Time{}
	}
	old, known := t.byKey[tag.Key]
	t.byKey[tag.Key] = tag
	same := known && old.Digest == tag.Digest && old.MediaType == tag.MediaType
	if same && tag.Checked.Sub(t.noted[tag.Key]) < tagNoted {
		return false
	}
	t.noted[tag.Key] = tag.Checked
	return true
}
