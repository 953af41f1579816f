package cache

import (
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// A watch hears which blobs enter the shard and leave it.
type watch struct {
	hear atomic.Pointer[func(d digest.Digest)]
}

// tell tells that the shard holds a blob since just now, or does so no more.
func (w *watch) tell(d digest.Digest) {
	if hear := w.hear.Load(); hear != nil {
		(*hear)(d)
	}
}

// Watch calls hear for each blob that has entered the shard or left it. Which of both is for
// Known to say: of a blob that leaves as soon as it has come, a reader may have found it damaged,
// hear is called twice, in any order. What the listing finds, and what is lost with a whole
// directory, it does not hear of. It is called without a lock, and returns at once.
func (s *Stock) Watch(hear func(d digest.Digest)) { s.shard.watch.hear.Store(&hear) }

// Each calls see for each blob that the shard holds, in no order, with the registry that it
// came from. Others use the index meanwhile, so a blob that comes or goes may be seen or not.
func (s *Stock) Each(see func(registry string, d digest.Digest)) {
	r := stockroom{s.shard.index}
	for from, end := int32(0), false; !end; from += placeBatch {
		var some []move
		some, end = r.some(from, placeBatch)
		for _, m := range some {
			see(m.registry, m.name.digest())
		}
	}
}
