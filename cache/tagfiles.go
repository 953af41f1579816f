package cache

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"sync"
	"syscall"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxTagFiles bounds the tags whose files are remembered: about all that there may be.
const maxTagFiles = 64 << 10

// tagFiles list the tags of the disk. Each file is read once, until it changes.
type tagFiles struct {
	mu    sync.Mutex // guards known; never held during I/O
	known *simplelru.LRU[string, tagSeen]
}

// A tagSeen is a file of a tag as it was read. tag has no Key if it holds none.
type tagSeen struct {
	file identity
	tag  Tag
}

func newTagFiles() *tagFiles {
	known, _ := simplelru.NewLRU[string, tagSeen](maxTagFiles, nil) // the size is right
	return &tagFiles{known: known}
}

// all lists the tags. An error says which directories can't be read, or that ctx ended.
func (t *tagFiles) all(ctx context.Context, r *root) (out []Tag, err error) {
	for _, a := range []area{ownArea, strangerArea} {
		dirs, wrong := r.list("list", a.dir)
		err = errors.Join(err, wrong)
		for _, dir := range dirs {
			found, wrong := t.in(ctx, r, path.Join(a.dir, dir.Name()))
			out, err = append(out, found...), errors.Join(err, wrong)
			if ctx.Err() != nil {
				return out, err
			}
		}
	}
	return out, err
}

// in lists the tags of one directory.
func (t *tagFiles) in(ctx context.Context, r *root, dir string) (out []Tag, err error) {
	files, err := r.list("list", dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		info, err := f.Info()
		if err != nil || !f.Type().IsRegular() {
			continue // it has just been removed
		}
		if tag := t.read(r, path.Join(dir, f.Name()), info); tag.Key != "" {
			out = append(out, tag)
		}
	}
	return out, nil
}

// read returns the tag of a file.
func (t *tagFiles) read(r *root, at string, info fs.FileInfo) Tag {
	file := identity{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		file.inode = st.Ino
	}
	t.mu.Lock()
	seen, ok := t.known.Get(at)
	t.mu.Unlock()
	if ok && seen.file == file {
		return seen.tag
	}
	tag, err := readTag(r, at)
	if err != nil {
		tag = Tag{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known.Add(at, tagSeen{file, tag})
	return tag
}
