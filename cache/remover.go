package cache

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// errNoRoom: the bytes do not fit beside the blobs that are being read and those on
// their way in.
var errNoRoom = errors.New("no room in the shard")

// A remover removes the files of blobs that leave the shard.
type remover struct {
	log   *slog.Logger
	dir   *directory
	index *index
	small *small
	watch *watch
}

// expel takes a damaged or missing blob out of the shard, unless another reader
// did. The caller has it pinned.
func (r *remover) expel(d *root, i int32) {
	n := r.index.nameOf(i)
	if !r.index.expel(i) {
		return
	}
	r.log.Warn("blob removed from the cache: its file is damaged or missing", "digest", n.digest().String())
	r.noteFailure(r.removeFiles(d, []int32{i}))
}

// removeFiles removes the files of blobs that the index has let go. It fails
// unless all are gone.
func (r *remover) removeFiles(d *root, slots []int32) error {
	var errs []error
	for _, i := range slots {
		n := r.index.nameOf(i)
		r.small.remove(n)
		path := n.path()
		blob, meta := removeBoth(d, path, path+".meta")
		if !removedAnyhow(blob) {
			r.index.stuck(i)
			errs = append(errs, blob)
			continue
		}
		if !removedAnyhow(meta) {
			r.log.Debug("meta not removed; the next start removes it", "digest", n.digest().String(), "error", meta)
		}
		r.watch.tell(n.digest())
		r.index.removed(i)
	}
	return errors.Join(errs...)
}

// leave ends one reader of the blob in slot i.
func (r *remover) leave(i int32, path string) {
	note, over := r.index.leave(i, time.Now())
	if d := r.dir.inUse(); over && d != nil {
		r.noteFailure(r.removeFiles(&d.root, room{r.index}.shrink()))
	}
	if note {
		r.dir.noteUse(path, time.Now())
	}
}

// noteFailure notes that a file could not be removed.
func (r *remover) noteFailure(err error) {
	if err != nil {
		r.dir.note(err)
	}
}

// retryDamaged tries again to remove damaged files. It takes the turn of each, so
// that no blob comes in under its name meanwhile.
func (r *remover) retryDamaged(ctx context.Context, d *disk, commits *turns[key]) {
	for _, n := range r.index.damagedNames() {
		end, err := commits.take(ctx, n.key)
		if err != nil {
			return
		}
		if r.index.isDamaged(n) && d.remove(n.path()) == nil {
			r.index.removedDamaged(n)
		}
		end()
	}
}
