package cache

import (
	"log/slog"
	"time"
)

// A shard is the parts that a Store is made of. A part knows only those above it in
// this list. None knows the Store.
type shard struct {
	log *slog.Logger

	dir       *directory  // the directory in use
	listing   *listing    // whether the index has all of it
	index     *index      // which blobs it holds, and how much room is left
	commits   *turns[key] // turns for putting a blob's files in place, or removing them
	small     *small      // small blobs, in memory
	strays    *strays     // files that could not be removed
	parts     *parts      // downloads that broke off
	remover   *remover    // removes the files of blobs that leave
	pressure  *pressure   // handles a full disk
	allocator *allocator  // makes room for blobs on their way in
	opener    *opener     // opens blobs
	windows   *Windows    // bound the memory for blobs that have no place on disk
	verified  *verified   // counts what was verified
	retainer  *retainer   // what is never evicted

	outline  func(mediaType string, content []byte) []byte // as in Options
	outlined func(Label)
	watch    *watch
}

// newShard returns a shard without a directory. Waiting for its listing ends
// when closed does.
func newShard(log *slog.Logger, opts Options, closed <-chan struct{}) *shard {
	s := &shard{
		log: log, dir: &directory{log: log}, listing: &listing{done: make(chan struct{}), late: make(chan struct{}), closed: closed},
		index: newIndex(opts.Bound, opts.Shares), small: newSmall(opts.Memory), commits: &turns[key]{}, windows: opts.Windows, verified: &verified{},
		outline: opts.Outline, outlined: opts.Outlined, watch: &watch{},
	}
	left := room{s.index}
	s.strays = &strays{room: left}
	s.parts = &parts{room: left, strays: s.strays}
	s.remover = &remover{log: log, dir: s.dir, index: s.index, small: s.small, watch: s.watch}
	s.pressure = &pressure{log: log, room: left, parts: s.parts, remover: s.remover}
	s.allocator = &allocator{room: left, listing: s.listing, strays: s.strays, parts: s.parts, remover: s.remover, pressure: s.pressure}
	s.opener = &opener{
		dir: s.dir, listing: s.listing, index: s.index, small: s.small, remover: s.remover, commits: s.commits,
		verify: opts.Verify, verified: s.verified,
	}
	s.retainer = newRetainer(log, s.dir, stockroom{s.index})
	return s
}

// withDefaults fills in what the options leave open.
func (o Options) withDefaults() Options {
	if o.Memory == 0 {
		o.Memory = 8 << 20 // the page cache has the others, and a file is read in one go
	}
	if o.Windows == nil {
		o.Windows = NewWindows(windowsSize)
	}
	if o.Verify == 0 {
		o.Verify = 24 * time.Hour
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Outline == nil {
		o.Outline = func(string, []byte) []byte { return nil }
	}
	if o.Outlined == nil {
		o.Outlined = func(Label) {}
	}
	return o
}
