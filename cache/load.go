package cache

const (
	// pageSize is what file systems give a file room by.
	pageSize = 4 << 10
	// metaHead is roughly how many bytes a meta has beside its sums.
	metaHead = 400
	// freeExtra is how much room blobs may take beside their bytes before that counts
	// towards the bound; a 64th of the bound is free as well. Ordinary blobs never take
	// so much. What is beyond counts twice, until from twice as much on all of it counts:
	// then a store of small blobs keeps its bound in blocks of the file system.
	freeExtra = 3 << 19
	// freeBlobs is how many blobs there may be before their number counts.
	freeBlobs = 4 << 10
	// leastPerBlob is what each blob beyond those counts at least: its two files take an
	// inode each, and file systems have one for 16 KiB.
	leastPerBlob = 32 << 10
)

// A load is what some blobs take.
type load struct {
	bytes int64 // their own
	extra int64 // room on disk beyond that: the rest of their last pages, and their metas
	blobs int64
}

// loadOf is what one blob of that size takes.
func loadOf(size int64) load {
	return load{bytes: size, extra: pages(size) - size + pages(metaHead+8*chunks(size)), blobs: 1}
}

// pages is the room that a file of n bytes takes.
func pages(n int64) int64 { return (n + pageSize - 1) / pageSize * pageSize }

// add adds another load.
func (l *load) add(o load) {
	l.bytes += o.bytes
	l.extra += o.extra
	l.blobs += o.blobs
}

// take takes another load away.
func (l *load) take(o load) { l.add(load{-o.bytes, -o.extra, -o.blobs}) }

// without is what is left without another load.
func (l load) without(o load) load {
	l.take(o)
	return l
}

// counts is how many bytes the load counts towards a bound of most bytes.
func (l load) counts(most int64) int64 {
	beyond := max(0, l.extra-freeExtra-most/64)
	return max(l.bytes+min(l.extra, 2*beyond), (l.blobs-freeBlobs)*leastPerBlob)
}
