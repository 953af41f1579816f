// Package pages keeps the last answers of registries to questions about a repository:
// pages of its lists, and that it has no such tag. They stand in while a registry
// fails, after a restart too.
//
// A [Shelf] keeps them in a folder of the cache directory, each in a file of its own
// (file.go), and bounds them by registry (index.go). A page comes in as a [Draft]
// (draft.go) and is read as a [Sheet] (sheet.go). Both lie in a file unless they are
// small, so a page that many clients read slowly, or do not read, costs next to no
// memory. Without a disk pages lie in memory, and share a budget. Who may have a page is
// for the caller to see.
package pages

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"sync/atomic"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

const (
	// part is which part of the cache's bound pages may use beside it.
	part = 8
	// least and most bound that, in bytes.
	least, most = 1 << 20, 512 << 20
	// draftBytes bounds the bytes of pages on disk that are on their way or that could
	// not be kept, of configured registries and of all others.
	draftBytes = 128 << 20
	// waiting bounds how many drafts may wait for such bytes, and patience how long each of
	// them waits for bytes altogether.
	waiting  = 256
	patience = 10 * time.Second
	// again is for how long an answer that has not changed is not written again. Its
	// file may give a time that is so much too early.
	again = time.Minute
)

// A Word is the last answer of a registry to a question.
type Word struct {
	Told time.Time
	Page *oci.Page // set if it is a page
	Size int64     // of the page in bytes
	Sum  string    // of the page: SHA-256 in hexadecimal
	// No is set if it is no page: the registry said that there is no such thing
	// (oci.NotFound), or refused (oci.Denied).
	No *oci.Error
}

// A Shelf keeps Words. Its methods may be called from any goroutine. All but New may
// read or write the disk.
type Shelf struct {
	log              *slog.Logger
	bound            int64
	known, strangers *wait.Budget
	place            atomic.Pointer[place] // nil without a disk
	unkept           unkept
}

// A place is the folder in use, and what lies in it.
type place struct {
	folder *cache.Folder
	index  *index
}

// New returns a Shelf beside a cache of that bound in bytes, 0 for none. It keeps
// nothing until Take.
func New(log *slog.Logger, cacheBound int64) *Shelf {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	bound := min(max(cacheBound/part, least), most)
	if cacheBound <= 0 {
		bound = most
	}
	return &Shelf{
		log: log, bound: bound,
		known:     wait.NewBudget(draftBytes, waiting, patience),
		strangers: wait.NewBudget(draftBytes, waiting, patience),
		unkept:    unkept{byName: map[string]*loan{}},
	}
}

// Take takes a folder into use, and what lies in it.
func (s *Shelf) Take(f *cache.Folder) {
	p := &place{f, newIndex(s.bound)}
	notes, err := f.Notes()
	if err != nil {
		s.log.Warn("kept lists not read: they do not stand in while a registry fails", "error", err)
	}
	for _, n := range notes {
		e, ok := parseName(n.Name)
		if !ok {
			s.remove(p, n.Name)
			continue
		}
		e.size = p.index.weight(n.Size)
		old, out, _ := p.index.put(e)
		s.removeAll(p, append(out, old))
	}
	s.place.Store(p)
}

// Last returns the registry's last word on a question.
func (s *Shelf) Last(q oci.Question) (Word, bool) {
	p, name, ok := s.find(q)
	if !ok {
		return Word{}, false
	}
	w, _, end, err := open(p.folder, name, q.Key())
	if err != nil {
		s.lose(p, q, name, err)
		return Word{}, false
	}
	end()
	return w, true
}

// Open opens the page that is the registry's last word on a question, after it was
// checked against its sum. Close it.
func (s *Shelf) Open(q oci.Question) (*Sheet, bool) {
	p, name, ok := s.find(q)
	if !ok {
		return nil, false
	}
	leave := p.index.read(keyOf(q), name)
	w, body, end, err := open(p.folder, name, q.Key())
	switch {
	case err == nil && w.Page == nil:
		end()
		leave()
		return nil, false
	case err == nil:
		if err = check(body, w); err != nil {
			end()
		}
	}
	if err != nil {
		leave()
		s.lose(p, q, name, err)
		return nil, false
	}
	return newSheet(w, body, func() { end(); leave() }), true
}

// Knows reports whether a last word on a question is known. It does no I/O.
func (s *Shelf) Knows(q oci.Question) bool {
	_, _, ok := s.find(q)
	return ok
}

// find returns the file of a question.
func (s *Shelf) find(q oci.Question) (p *place, name string, ok bool) {
	if p = s.place.Load(); p == nil || p.index.empty() {
		return nil, "", false
	}
	e := p.index.get(keyOf(q))
	if e == nil {
		return nil, "", false
	}
	return p, e.name, true
}

// lose forgets a file that can't be read, or does not hold what it should.
func (s *Shelf) lose(p *place, q oci.Question, name string, err error) {
	s.log.Warn("a kept list can't be read: it is forgotten", "registry", q.Registry, "image", q.Repository, "error", err)
	s.removeAll(p, []*entry{p.index.drop(keyOf(q), name)})
}

// Note keeps a word that is no page, for a registry that somebody configured or not.
func (s *Shelf) Note(q oci.Question, w Word, stranger bool) {
	p := s.place.Load()
	if p == nil || w.No == nil {
		return
	}
	if e := p.index.get(keyOf(q)); e != nil && e.isNo && w.Told.Sub(e.noted) < again && e.sum == w.No.Kind.String() {
		return
	}
	e := newEntry(q, stranger, true)
	b := encode(q.Key(), w)
	e.noted, e.sum, e.size = w.Told, w.No.Kind.String(), p.index.weight(int64(len(b)))
	s.keep(p, e, func() error { return p.folder.Write(e.name, b) })
}

// Forget forgets the last word on a question.
func (s *Shelf) Forget(q oci.Question) {
	if p := s.place.Load(); p != nil {
		s.removeAll(p, []*entry{p.index.drop(keyOf(q), "")})
	}
}

// keep puts a file in place by write, and reports whether it did. The one before goes.
func (s *Shelf) keep(p *place, e *entry, write func() error) bool {
	e.writing = true
	old, out, ok := p.index.put(e)
	if !ok {
		return false
	}
	s.removeAll(p, out)
	if err := write(); err != nil {
		s.log.Debug("list not kept", "error", err)
		s.removeAll(p, []*entry{p.index.undo(e, old)})
		return false
	}
	p.index.written(e)
	s.removeAll(p, []*entry{old})
	return true
}

// removeAll removes the files of entries that are not in the index any more.
func (s *Shelf) removeAll(p *place, out []*entry) {
	for _, e := range out {
		if e != nil {
			s.remove(p, e.name)
		}
	}
}

// remove removes a file.
func (s *Shelf) remove(p *place, name string) {
	if err := p.folder.Remove(name); err != nil {
		s.log.Debug("kept list not removed", "error", err)
	}
}

// Used returns how many bytes the pages use on disk, and how many they may.
func (s *Shelf) Used() (bytes, bound int64) {
	if p := s.place.Load(); p != nil {
		bytes = p.index.usedBytes()
	}
	return bytes, s.bound
}

// Draft begins a page that answers a question, of a registry that somebody configured or
// not. Without a disk its bytes are claimed from memory. ctx bounds the wait for bytes.
// End it by Finish or Close.
func (s *Shelf) Draft(ctx context.Context, q oci.Question, stranger bool, memory *wait.Budget) *Draft {
	disk := s.known
	if stranger {
		disk = s.strangers
	}
	return &Draft{
		ctx: ctx, shelf: s, place: s.place.Load(), question: q, stranger: stranger,
		hash: sha256.New(), inMemory: memory.Claim(), onDisk: disk.Claim(),
	}
}

// keyOf is a question's key in the index. Nobody can make up two with one key.
func keyOf(q oci.Question) string {
	sum := sha256.Sum256([]byte(q.Key()))
	return hex.EncodeToString(sum[:16])
}
