package cache

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
)

// A Tag says which manifest a tag named when upstream was last asked.
type Tag struct {
	Key       string        `json:"key"` // registry, space, repository, space, and more words of the caller's
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"media_type"`
	Size      int64         `json:"size"`
	Checked   time.Time     `json:"checked"`
}

// tags keeps the tags: each in a file, the recently used ones in memory too.
type tags struct {
	log    *slog.Logger
	dir    *directory
	places *places
	files  turns[string] // by key, so that the file has what was set last
	// memory is of configured registries, strangers of all others.
	memory, strangers *lru.Cache[string, tagInMemory]
}

// A tagInMemory is a tag, and the time of its last check as its file has it.
type tagInMemory struct {
	Tag
	noted time.Time
}

// maxTags bounds the tags in memory, of configured registries and of others. Other
// tags are read from their files.
const maxTags = 8 << 10

// tagNoted is how long a tag that has not changed is not written again. Its file may
// give a time of the last check that is so much too early.
const tagNoted = time.Minute

func newTags(log *slog.Logger, dir *directory, group func(registry string) Group) *tags {
	memory, _ := lru.New[string, tagInMemory](maxTags) // fails only for a size below 1
	strangers, _ := lru.New[string, tagInMemory](maxTags)
	return &tags{log: log, dir: dir, places: newPlaces(group), memory: memory, strangers: strangers}
}

// inMemory is where a tag is remembered.
func (t *tags) inMemory(key string) *lru.Cache[string, tagInMemory] {
	if t.places.group(registryOf(key)).Stranger {
		return t.strangers
	}
	return t.memory
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
	memory := t.inMemory(key)
	if known, ok := memory.Get(key); ok {
		return known.Tag, true
	}
	defer t.turn(key)() // a tag set meanwhile is newer than the file
	if known, ok := memory.Get(key); ok {
		return known.Tag, true
	}
	d := t.dir.inUse()
	if d == nil {
		return Tag{}, false
	}
	tag, ok := t.read(d, key)
	if ok {
		memory.Add(key, tagInMemory{tag, tag.Checked})
	}
	return tag, ok
}

// read reads a tag from its file, or from where it lay before: then it moves.
func (t *tags) read(d *disk, key string) (Tag, bool) {
	in, err := t.places.in(d)
	if err != nil {
		t.log.Debug("tag not read from disk", "error", err)
		return Tag{}, false
	}
	for i, at := range in.all(key) {
		tag, err := readTag(&d.root, at)
		if err != nil || tag.Key != key {
			continue
		}
		if i > 0 {
			if err := t.write(d, tag); err != nil {
				t.log.Debug("tag not moved to its place on disk", "error", err)
			}
		}
		return tag, true
	}
	return Tag{}, false
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
	if !t.keep(tag) || d == nil {
		return
	}
	if err := t.write(d, tag); err != nil {
		t.log.Debug("tag not written to disk", "error", err)
	}
}

// write writes a tag's file, and makes sure that there is no other of that tag, and
// that there are not too many in its directory.
func (t *tags) write(d *disk, tag Tag) error {
	in, err := t.places.in(d)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(tag)
	if err != nil {
		return err
	}
	all := in.all(tag.Key)
	if err := d.writeFile(all[0], seal(raw)); err != nil {
		return err
	}
	for _, before := range all[1:] {
		if err := d.remove(before); err != nil {
			return err
		}
	}
	return thin(&d.root, all[0])
}

// keep remembers a tag in memory, and reports whether its file has to be
// written. The caller has the key's turn.
func (t *tags) keep(tag Tag) bool {
	memory := t.inMemory(tag.Key)
	old, known := memory.Get(tag.Key)
	same := known && old.Digest == tag.Digest && old.MediaType == tag.MediaType
	if same && tag.Checked.Sub(old.noted) < tagNoted {
		memory.Add(tag.Key, tagInMemory{tag, old.noted})
		return false
	}
	memory.Add(tag.Key, tagInMemory{tag, tag.Checked})
	return true
}

// forget forgets a tag and removes its file.
func (t *tags) forget(key string) {
	defer t.turn(key)()
	t.inMemory(key).Remove(key)
	d := t.dir.inUse()
	if d == nil {
		return
	}
	in, err := t.places.in(d)
	if err == nil {
		for _, at := range in.all(key) {
			err = errors.Join(err, d.remove(at))
		}
	}
	if err != nil {
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
	if !ok || json.Unmarshal(raw, &tag) != nil || tag.Digest.Validate() != nil {
		return Tag{}, errTag
	}
	return tag, nil
}
