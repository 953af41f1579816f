package cache

// An allocator makes room for blobs on their way in.
type allocator struct {
	room
	listing  *listing
	strays   *strays
	parts    *parts
	remover  *remover
	pressure *pressure
}

// makeRoom reserves n bytes for a registry, and removes the blobs evicted for it.
func (a *allocator) makeRoom(d *disk, registry string, n int64) error {
	if err := a.listing.waitBriefly(); err != nil {
		return err
	}
	a.strays.retry()
	a.parts.yield(registry, n)
	victims, err := a.reserve(registry, n)
	if err != nil {
		return err
	}
	return a.clear(d, registry, n, victims)
}

// makeRoomBeside is makeRoom for a blob that is another node's to keep: nothing goes for
// it that is this node's.
func (a *allocator) makeRoomBeside(d *disk, registry string, n int64) error {
	if err := a.listing.waitBriefly(); err != nil {
		return err
	}
	a.strays.retry()
	victims, err := a.reserveBeside(registry, n)
	if err != nil {
		return err
	}
	return a.clear(d, registry, n, victims)
}

// clear removes the blobs evicted for n bytes, and waits until those can be written.
func (a *allocator) clear(d *disk, registry string, n int64, victims []int32) error {
	if err := a.remover.removeFiles(&d.root, victims); err != nil {
		a.cancel(registry, n)
		a.remover.noteFailure(err)
		return err
	}
	return a.settle(registry, n)
}

// retryFull calls do. If do finds the disk full, it makes room for n bytes of a
// registry and calls do once more.
func (a *allocator) retryFull(d *disk, registry string, n int64, do func() error) error {
	err := do()
	if full(err) && a.pressure.relieve(d, registry, n) {
		err = do()
	}
	return err
}
