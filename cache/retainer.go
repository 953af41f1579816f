package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// A Retention is content that is not evicted, by a name that people know it by.
type Retention struct {
	Name     string                  `json:"name"`
	Registry string                  `json:"registry"` // towards whose share it counts
	Content  map[digest.Digest]int64 `json:"content"`  // sizes in bytes
}

// ErrTooMuch says that more would be retained than a quarter of the bound.
var ErrTooMuch = errors.New("more than a quarter of the cache would be pinned")

// retainPart is which part of a bound may be retained.
const retainPart = 4

// retainedFile lies in the cache directory. Each line is a sum and a Retention.
const retainedFile = "retained"

// A retainer keeps what is never evicted: in a file, so that it counts after a restart.
type retainer struct {
	log    *slog.Logger
	dir    *directory
	index  stockroom
	writes turns[struct{}] // so that the file has what was told last

	mu     sync.Mutex // guards byName; never held during I/O
	byName map[string]Retention
}

func newRetainer(log *slog.Logger, dir *directory, index stockroom) *retainer {
	return &retainer{log: log, dir: dir, index: index, byName: map[string]Retention{}}
}

// list returns a copy of what is retained, by name.
func (r *retainer) list() []Retention {
	all := r.all()
	out := make([]Retention, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[name])
	}
	return out
}

// all returns what is retained. Nobody changes the map.
func (r *retainer) all() map[string]Retention {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byName
}

// put retains content, in place of what had that name before.
func (r *retainer) put(one Retention) error {
	return r.change(func(all map[string]Retention) (bool, error) {
		all[one.Name] = one
		return true, r.fits(all, one.Registry)
	})
}

// drop undoes put.
func (r *retainer) drop(name string) (had bool, err error) {
	err = r.change(func(all map[string]Retention) (bool, error) {
		_, had = all[name]
		delete(all, name)
		return had, nil
	})
	return had, err
}

// errNoDisk: nothing can be written down.
var errNoDisk = errors.New("the cache directory can't be used now")

// change makes a change, if it can be written down. edit reports whether there is one.
func (r *retainer) change(edit func(map[string]Retention) (bool, error)) error {
	end, err := r.writes.take(context.Background(), struct{}{})
	if err != nil {
		return err
	}
	defer end()
	d := r.dir.inUse()
	if d == nil {
		return errNoDisk
	}
	next := maps.Clone(r.all())
	if changed, err := edit(next); err != nil || !changed {
		return err
	}
	text, err := encodeRetained(next)
	if err == nil {
		err = d.writeFile(retainedFile, text)
	}
	if err != nil {
		return fmt.Errorf("writing down what is pinned: %w", err)
	}
	r.take(next)
	return nil
}

// take makes these what is retained.
func (r *retainer) take(all map[string]Retention) {
	names := map[name]struct{}{}
	for _, one := range all {
		for d := range one.Content {
			if n, err := nameOf(d); err == nil {
				names[n] = struct{}{}
			}
		}
	}
	r.mu.Lock()
	r.byName = all
	r.mu.Unlock()
	r.index.retain(names)
}

// fits returns ErrTooMuch if that is more than a quarter of the bound, or of the
// registry's own. Content of several names counts once.
func (r *retainer) fits(all map[string]Retention, registry string) error {
	total, own := map[digest.Digest]int64{}, map[digest.Digest]int64{}
	for _, one := range all {
		maps.Copy(total, one.Content)
		if one.Registry == registry {
			maps.Copy(own, one.Content)
		}
	}
	bound, share := r.index.bounds(registry)
	if err := within(total, bound); err != nil {
		return err
	}
	return within(own, share)
}

// within returns ErrTooMuch if content is more than its part of a bound, 0 for none.
func within(content map[digest.Digest]int64, bound int64) error {
	n := int64(0)
	for _, size := range content {
		n += size
		if bound != 0 && (size > bound || n > bound/retainPart) {
			return fmt.Errorf("%w: the bound is %d bytes, so at most %d can be", ErrTooMuch, bound, bound/retainPart)
		}
	}
	return nil
}

// load reads what is retained in a directory that is taken into use. What a damaged line
// said is lost, and nothing else.
func (r *retainer) load(d *disk) {
	text, err := d.read(retainedFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.log.Error("what is pinned can't be read: pin it again", "error", err)
	}
	all, damaged := decodeRetained(text)
	if damaged > 0 {
		r.log.Error("a part of what is pinned is damaged: pin it again", "lines", damaged)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := r.fits(all, all[name].Registry); err != nil {
			r.log.Warn("not pinned any more: the bound is lower than it was", "image", name, "error", err)
			delete(all, name)
		}
	}
	r.take(all)
}

// encodeRetained writes a line for each.
func encodeRetained(all map[string]Retention) ([]byte, error) {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(all)) {
		line, err := json.Marshal(all[name])
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%08x %s\n", crc32.ChecksumIEEE(line), line)
	}
	return b.Bytes(), nil
}

// decodeRetained reads what encodeRetained wrote, and counts the lines that are damaged.
func decodeRetained(text []byte) (all map[string]Retention, damaged int) {
	all = map[string]Retention{}
	for line := range strings.Lines(string(text)) {
		sum, content, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var one Retention
		if sum != fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(content))) || json.Unmarshal([]byte(content), &one) != nil {
			damaged++
			continue
		}
		all[one.Name] = one
	}
	return all, damaged
}
