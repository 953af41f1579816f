package cache

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
)

// A Tag says which manifest a tag named when upstream was last asked.
type Tag struct {
	Key       string        `json:"key"` // names the tag, in the caller's words; see Kept
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"media_type"`
	Size      int64         `json:"size"`
	Checked   time.Time     `json:"checked"`
}

// tags keeps the tags: each in a file, the recently used ones in memory too.
type tags struct {
	log    *slog.Logger
	dir    *directory
	files  turns[string] // by key, so that the file has what was set last
	memory *lru.Cache[string, tagInMemory]
}

// A tagInMemory is a tag, and the time of its last check as its file has it.
type tagInMemory struct {
	Tag
	noted time.Time
}

// maxTags bounds the tags in memory. Other tags are read from their files.
const maxTags = 16 << 10

// tagNoted is how long a tag that has not changed is not written again. Its file may
// give a time of the last check that is so much too early.
const tagNoted = time.Minute

// Kept is the prefix of keys whose tags are never removed for others, so that no
// client can push one out. When there are too many, a new one is not remembered.
const Kept = "!"

// maxKept bounds such tags in each of 256 directories of their own.
const maxKept = 1024

// maxTagFiles bounds the other tags in each of 256 directories: 64 Ki of them, a
// page each.
const maxTagFiles = 256

func newTags(log *slog.Logger, dir *directory) *tags {
	memory, _ := lru.New[string, tagInMemory](maxTags) // fails only for a size below 1
	return &tags{log: log, dir: dir, memory: memory}
}

// tagPath is the file of a tag.
func tagPath(key string) string {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(key)))
	if strings.HasPrefix(key, Kept) {
		return "tags/" + Kept + sum[:2] + "/" + sum
	}
	return "tags/" + sum[:2] + "/" + sum
}

// Tag returns the tag named by key as it was set last. It may read the disk.
func (s *Store) Tag(key string) (Tag, bool) { return s.tags.get(key) }

// SetTag remembers which manifest the tag t.Key names, after a restart too. It may
// write to the disk.
func (s *Store) SetTag(t Tag) { s.tags.set(t) }

// ForgetTag forgets the tag named by key. It removes the tag's file.
func (s *Store) ForgetTag(key string) { s.tags.forget(key) }

// get returns a tag from memory or from its file.
func (t *tags) get(key string) (Tag, bool) {
	if known, ok := t.memory.Get(key); ok {
		return known.Tag, true
	}
	defer t.turn(key)() // a tag set meanwhile is newer than the file
	if known, ok := t.memory.Get(key); ok {
		return known.Tag, true
	}
	d := t.dir.inUse()
	if d == nil {
		return Tag{}, false
	}
	tag, err := readTag(&d.root, tagPath(key))
	if err != nil || tag.Key != key {
		return Tag{}, false
	}
	t.memory.Add(key, tagInMemory{tag, tag.Checked})
	return tag, true
}

// turn waits for the key's turn, and returns what ends it.
func (t *tags) turn(key string) (end func()) {
	end, _ = t.files.take(context.Background(), key) // fails only at the context's end and after close
	return end
}

// set remembers a tag, and writes its file if that is due.
func (t *tags) set(tag Tag) {
	defer t.turn(tag.Key)()
	d := t.dir.inUse()
	if d != nil && !hasPlace(&d.root, tag.Key) || !t.keep(tag) || d == nil {
		return
	}
	raw, err := json.Marshal(tag)
	if err == nil {
		err = d.writeFile(tagPath(tag.Key), seal(raw))
	}
	if err != nil {
		t.log.Debug("tag not written to disk", "error", err)
	}
	if strings.HasPrefix(tag.Key, Kept) {
		return
	}
	if err := thin(&d.root, path.Dir(tagPath(tag.Key)), maxTagFiles); err != nil {
		t.log.Debug("old tags not removed from disk", "error", err)
	}
}

// keep remembers a tag in memory, and reports whether its file has to be
// written. The caller has the key's turn.
func (t *tags) keep(tag Tag) bool {
	old, known := t.memory.Get(tag.Key)
	same := known && old.Digest == tag.Digest && old.MediaType == tag.MediaType
	if same && tag.Checked.Sub(old.noted) < tagNoted {
		t.memory.Add(tag.Key, tagInMemory{tag, old.noted})
		return false
	}
	t.memory.Add(tag.Key, tagInMemory{tag, tag.Checked})
	return true
}

// forget forgets a tag and removes its file.
func (t *tags) forget(key string) {
	defer t.turn(key)()
	t.memory.Remove(key)
	d := t.dir.inUse()
	if d == nil {
		return
	}
	if err := d.remove(tagPath(key)); err != nil {
		t.log.Warn("tag not removed from disk: it may come back after a restart", "error", err)
	}
}

// errTag: a file does not hold a whole tag.
var errTag = errors.New("the file holds no tag, or is damaged")

// readTag reads a tag's file.
func readTag(r *root, path string) (tag Tag, err error) {
	raw, err := r.read(path)
	if err != nil {
		return Tag{}, err
	}
	raw, ok := unseal(raw)
	if !ok || json.Unmarshal(raw, &tag) != nil || tag.Digest.Validate() != nil || path != tagPath(tag.Key) {
		return Tag{}, errTag
	}
	return tag, nil
}

// hasPlace reports whether there is a place for the tag of that key.
func hasPlace(r *root, key string) bool {
	if !strings.HasPrefix(key, Kept) || r.exists(tagPath(key)) {
		return true
	}
	entries, err := r.list("list", path.Dir(tagPath(key)))
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) < maxKept
}

// thin removes from a directory of more than n files those that were written
// the longest ago, a quarter at once.
func thin(r *root, dir string, n int) error {
	entries, err := r.list("list", dir)
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
		errs = append(errs, r.removeAll(path.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}
