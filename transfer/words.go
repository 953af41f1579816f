package transfer

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/pages"
)

// words know the last answers of registries to questions about repositories, this node's
// and the other members'. The newest counts, whoever heard it.
type words struct {
	*rooms
	relay *relay // of answers that this node had from the registry

	mu     sync.Mutex // guards looked; never held during I/O
	looked *simplelru.LRU[string, time.Time]
}

const (
	// lookAgain is for how long the other members are not asked again for a word on the
	// same question.
	lookAgain = time.Second
	// maxLooked bounds the questions for which that is remembered.
	maxLooked = 4096
	// maxAsked bounds how many members are asked, and membersWithin how long that takes.
	maxAsked      = 32
	membersWithin = 2 * time.Second
	// spare is what a client's time has to have left for what follows.
	spare = 500 * time.Millisecond
)

func newWords(r *rooms) *words {
	w := &words{rooms: r}
	w.looked, _ = simplelru.NewLRU[string, time.Time](maxLooked, nil) // the size is right
	return w
}

// own returns the last word that this node knows, if it may still stand in.
func (w *words) own(q asked) (pages.Word, bool) {
	word, ok := q.Shard.Pages.Last(q.question())
	return word, ok && w.counts(q, word)
}

// counts reports whether a word may stand in: it is not too old, and the registry has not
// taken it back.
func (w *words) counts(q asked, word pages.Word) bool {
	age := time.Since(word.Told)
	return age >= 0 && age < q.StaleIfError && (word.No != nil || w.grants.Stands(q.Request, q.question().Resource(), word.Told))
}

// hear keeps what the registry itself said: that there is no such thing, or that it
// refuses. What anybody else says changes nothing, but that a registry's redirect leads to
// no list of referrers is kept where there never was one (GHCR).
func (w *words) hear(q asked, err error) {
	e, ok := oci.AsError(err)
	if !ok || e.Status == 0 || e.Kind != oci.NotFound && e.Kind != oci.Denied {
		return
	}
	if !e.Authoritative() && !w.led(q, e) {
		return
	}
	told := e.Told
	if told.IsZero() {
		told = time.Now()
	}
	q.Shard.Pages.Note(q.question(), pages.Word{Told: told, No: e}, q.Stranger)
	if e.Told.IsZero() && !e.Relayed {
		w.relay.tell(q, e.Kind.String())
	}
}

// present forgets that there was no such thing.
func (*words) present(a asked) {
	if a.Shard.Pages.Knows(a.question()) {
		a.Shard.Pages.Forget(a.question())
	}
}

// keep keeps a member's word that there is no such thing, if it is newer than this node's
// and may stand in.
func (w *words) keep(q asked, one mesh.Word) {
	word := pages.Word{Told: one.At, No: one.No}
	if own, known := w.own(q); (!known || one.At.After(own.Told)) && w.counts(q, word) {
		q.Shard.Pages.Note(q.question(), word, q.Stranger)
	}
}

// led reports whether an error says that a registry leads elsewhere for a list of referrers,
// where there is none, and never had one.
func (w *words) led(q asked, e *oci.Error) bool {
	if e.By != oci.Storage || e.Kind != oci.NotFound || q.question().Resource() != oci.ReferrersResource {
		return false
	}
	word, known := q.Shard.Pages.Last(q.question())
	return !known || word.No != nil
}

// instead returns the error for a client, now that the registry fails in that way: its last
// word, if that is that there is no such thing.
func (w *words) instead(q asked, failed *oci.Error) error {
	word, ok := w.own(q)
	if !ok || word.No == nil || word.No.Kind != oci.NotFound {
		return failed
	}
	no := *word.No
	no.Told, no.Err = word.Told, failed
	return &no
}

// newer asks the other members for their last words. It keeps the newest if that says that
// there is no page, and is newer than this node's. Otherwise it returns those that have a
// newer page, the newest first. The client waits since began.
func (w *words) newer(ctx context.Context, q asked, began time.Time) []mesh.Peer {
	all := w.look(ctx, q, membersWithin, began)
	best, known := w.own(q)
	var out []mesh.Peer
	for _, one := range all {
		word := pages.Word{Told: one.At, No: one.No}
		if known && !one.At.After(best.Told) {
			break
		}
		if known && word.No == nil && one.Sum == best.Sum { // its time is counted by two clocks
			continue
		}
		if word.No == nil {
			w.grants.Grant(q.Request, q.question().Resource(), one.At)
		}
		switch {
		case !w.counts(q, word):
		case word.No == nil:
			out = append(out, one.from)
		case len(out) == 0:
			q.Shard.Pages.Note(q.question(), word, q.Stranger)
			return nil
		}
	}
	return out
}

// look asks the other members for their last words, unless they just were, within that
// time. It returns what they know, the newest first.
func (w *words) look(ctx context.Context, q asked, within time.Duration, began time.Time) []told {
	left := promised - time.Since(began) - spare
	if left <= 0 || len(w.mesh.Members()) == 0 || !w.mayLook(q.question().Key()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, min(left, within))
	defer cancel()
	return w.gather(ctx, q)
}

// mayLook reports whether the other members may be asked, and notes that they are.
func (w *words) mayLook(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if until, ok := w.looked.Get(key); ok && time.Now().Before(until) {
		return false
	}
	w.looked.Add(key, time.Now().Add(lookAgain))
	return true
}

// A told is what a member said.
type told struct {
	mesh.Word
	from mesh.Peer
}

// gather asks the other members at once. It returns what they know, the newest first.
func (w *words) gather(ctx context.Context, q asked) []told {
	var peers []mesh.Peer
	for _, p := range append(w.mesh.Route(q.Registry, q.place()), w.mesh.Members()...) {
		if p != nil && len(peers) < maxAsked && !slices.ContainsFunc(peers, func(o mesh.Peer) bool { return o.ID() == p.ID() }) {
			peers = append(peers, p)
		}
	}
	answers := make([]told, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			word, err := p.LastWord(ctx, q.question())
			if err != nil {
				w.log.Debug("member knows no last answer", "peer", p.Name(), "registry", q.Registry, "image", q.Repository, "error", err)
				return
			}
			answers[i] = told{word, p}
		})
	}
	wg.Wait()
	answers = slices.DeleteFunc(answers, func(t told) bool { return t.from == nil })
	slices.SortStableFunc(answers, func(a, b told) int { return b.At.Compare(a.At) })
	return answers
}
