package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"time"
)

// Commit ends the ingest. If the bytes are those that the digest names, its
// followers get the rest; if all bytes are on disk, the blob enters the shard. A
// blob that does not enter the shard, and that nobody has followed yet, waits a few
// seconds for its first follower. If the bytes are wrong Commit returns ErrDigest,
// if some are missing io.ErrUnexpectedEOF, and the followers get the same error.
// After Commit, Abort does nothing.
func (in *Ingest) Commit() error {
	k := in.sink
	if size := in.Size(); size >= 0 && k.written != size {
		return in.fail(io.ErrUnexpectedEOF)
	}
	if err := k.content.verdict(); err != nil {
		return in.fail(err)
	}
	if (k.file != nil || k.gathers) && !k.passing && !k.ended {
		k.enter()
	}
	in.end(right, nil)
	return nil
}

// Wrong reports whether all the bytes announced have come and do not match the
// digest, so that Commit will fail with ErrDigest.
func (in *Ingest) Wrong() bool {
	size := in.Size()
	return (size < 0 || in.sink.written == size) && in.sink.content.verdict() != nil
}

// Abort ends the ingest because of err, and its followers get err; nil stands for
// ErrAbandoned.
func (in *Ingest) Abort(err error) { _ = in.fail(cmp.Or(err, ErrAbandoned)) }

// fail ends the ingest because of err and returns it.
func (in *Ingest) fail(err error) error {
	if !errors.Is(err, ErrDigest) {
		in.sink.leavePart()
	}
	in.end(failed, err)
	return err
}

// end tells the followers the verdict, once, and releases the stream.
func (in *Ingest) end(v verdict, err error) {
	if !in.stream.end(v, err) {
		return
	}
	in.sink.verified.ended(in.sink.written, v, err)
	if v == right && !in.sink.stored {
		in.stream.awaitFirst()
	}
	in.stream.release(in.sink.end())
}

// enter brings the file and its meta into the shard. If that fails the blob is not
// kept; only the log and Health say so.
func (k *sink) enter() {
	k.content.sums.flush()
	isSmall := k.content.small != nil || k.written == 0
	if isSmall {
		k.noted = k.outline(k.mediaType, k.content.small)
	}
	place := k.place
	if k.gathers { // each of its two files may find the disk full
		place = func() error { return retryFull(k, k.disk, k.written, k.place) }
	}
	err := retryFull(k, k.disk, 0, place)
	if k.unasked && errors.Is(err, errNoRoom) {
		return
	}
	if k.dir.uses(k.disk) {
		k.dir.note(err)
	}
	if err != nil {
		k.log.Warn("blob not cached", "digest", k.digest.String(), "error", err)
		return
	}
	k.parts.supersede(k.name)
	if k.replica {
		k.dir.noteUse(k.name.path(), neverUsed)
	}
	if k.noted != nil {
		k.outlined(k.meta(k.registry).label())
	}
	if isSmall {
		k.small.put(k.name, &memoryBlob{content: k.content.small, mediaType: k.mediaType})
	}
}

// neverUsed is noted as the last use of a replica that nobody has read since it
// came, so that it is evicted first after a restart too.
var neverUsed = time.Unix(0, 0)

// errBusy: the blob's old file is still being removed.
var errBusy = errors.New("the blob's old file is still being removed")

// place gives the file its name and the index its entry. If the shard has the blob
// already, that file stays, and at most its meta is written again.
func (k *sink) place() error {
	end, err := k.commits.take(k.ctx, k.name.key)
	if err != nil {
		return err
	}
	defer end()
	if !k.index.await(k.name.key) {
		return errBusy
	}
	if e, _, held := k.index.look(k.name); held && e.size == k.written {
		return k.relabel()
	}
	if err := putIn(k); err != nil {
		dropMeta(k)
		return err
	}
	used := time.Now()
	if k.replica {
		used = neverUsed
	}
	slot, ok := k.index.insert(k.name, k.registry, k.written, used, k.replica, k.disk.epoch)
	if !ok { // the key is another blob's, or the directory was lost: the file would not count
		k.tmp = k.name.path()
		dropMeta(k)
		return errNoRoom
	}
	if k.own {
		stockroom{k.index}.own(slot)
	}
	if k.mediaType != "" {
		stockroom{k.index}.label(k.name)
	}
	k.reserved -= k.written
	k.tmp, k.slot = "", slot
	k.keep()
	k.shard.watch.tell(k.digest)
	return nil
}

// dropMeta removes the meta of a blob that did not get into the shard. If that fails too, the
// next start removes it.
func dropMeta(k *sink) { _ = k.disk.remove(k.name.path() + ".meta") }

// putIn puts the blob's two files in place.
func putIn(k *sink) error {
	raw, err := k.meta(k.registry).encode()
	switch {
	case err != nil:
		return fmt.Errorf("encoding a blob's meta: %w", err)
	case k.gathers:
		return writeIn(k, raw)
	default:
		return moveIn(k, raw)
	}
}

// moveIn gives a blob's file its name. The meta goes first, so that a blob is never there without
// it. No blob of that name is, or a damaged one that somebody still reads: a meta that is not
// whole shows by its checksum.
func moveIn(k *sink, meta []byte) error {
	path := k.name.path()
	if err := writeNew(&k.disk.root, path+".meta", meta); err != nil {
		return fmt.Errorf("writing a blob's meta: %w", err)
	}
	if err := k.disk.rename(k.tmp, path); err != nil {
		return fmt.Errorf("moving a blob into the shard: %w", err)
	}
	k.dropNote()
	return nil
}

// writeIn writes the gathered bytes under the blob's name at once, which costs less than to write
// and to rename a file. The meta goes last: without it a file is no blob, whatever is in it, so that
// after a crash there is none or a whole one. What is left after an error goes, before anybody
// else may use the name.
func writeIn(k *sink, meta []byte) error {
	path := k.name.path()
	err := writeNew(&k.disk.root, path, k.content.small)
	if err == nil {
		err = writeNew(&k.disk.root, path+".meta", meta)
	}
	if err == nil {
		k.strays.replaced(k.disk, path)
		return nil
	}
	if k.tmp = ""; !removedAnyhow(k.disk.remove(path)) {
		k.tmp = path // it is tried again
	}
	return fmt.Errorf("writing a blob: %w", err)
}

// keep notes that the shard has the blob.
func (k *sink) keep() {
	k.stored = true
	k.readers.keep()
}

// relabel gives a blob that the shard has already the media type it came with now:
// a blob may turn out to be a manifest.
func (k *sink) relabel() error {
	k.keep()
	if k.mediaType == "" {
		return nil
	}
	registry := k.registry
	if m, err := k.disk.readMeta(k.name); err == nil {
		if m.MediaType == k.mediaType {
			return nil
		}
		registry = m.Registry // the blob is in its share
	}
	stockroom{k.index}.label(k.name)
	return k.writeMeta(registry)
}

// writeMeta writes the meta beside the blob.
func (k *sink) writeMeta(registry string) error {
	raw, err := k.meta(registry).encode()
	if err == nil {
		err = k.disk.writeFile(k.name.path()+".meta", raw)
	}
	if err != nil {
		return fmt.Errorf("writing a blob's meta: %w", err)
	}
	return nil
}

// meta returns the meta of the bytes so far.
func (k *sink) meta(registry string) *meta {
	return &meta{
		Version: metaVersion, Digest: k.digest, Size: k.written, Chunk: chunkSize,
		Registry: registry, MediaType: k.mediaType, Repository: k.repository, Outline: k.noted, sums: k.content.sums.sums,
	}
}
