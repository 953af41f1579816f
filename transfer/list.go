package transfer

import (
	"context"
	"errors"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/pages"
	"oci-proxy/transfer/wait"
)

// lists get pages of lists, and keep them.
type lists struct {
	*rooms
	words *words
	// Calls for clients may wait for another node; calls for members must not.
	forClients, forMembers *wait.Shares[string, *List]
	instead                *wait.Shares[string, *List] // of pages that stand in while the registry fails
}

func newLists(r *rooms) *lists {
	return &lists{
		rooms: r, words: newWords(r),
		forClients: wait.NewShares[string, *List](r.life, answerWithin),
		forMembers: wait.NewShares[string, *List](r.life, answerWithin),
		instead:    wait.NewShares[string, *List](r.life, holdersWithin),
	}
}

// A List is a page of tags or referrers for a client. Close it.
type List struct {
	*pages.Sheet
	oci.Provenance
	leave func() // set if others may use the Sheet
}

// Close lets the page go.
func (l *List) Close() error {
	if l.leave != nil {
		l.leave()
		return nil
	}
	return l.Sheet.Close()
}

// given is the page as another member gets it.
func (l *List) given() *mesh.List {
	return &mesh.List{Page: *l.Page, Provenance: l.Provenance, Sheet: l}
}

// asked is a question, and what its registry means at the moment.
type asked struct {
	grants.Request
	query  oci.Query
	accept []string
}

// question is the question alone.
func (q asked) question() oci.Question {
	return oci.Question{Ref: q.Ref, Query: q.query, Accept: q.accept}
}

// asked returns q with what its registry means at the moment. Its Accept list is a
// client's, or a member's, which may lack what can't be sent.
func (f *Fetcher) asked(q oci.Question) asked {
	if q.Tag != "" {
		q.Accept = oci.Acceptable(q.Accept)
		return asked{Request: f.request(q.Ref), query: q.Query, accept: q.Accept}
	}
	list := oci.Ref{Registry: q.Registry, Repository: q.Repository}
	return asked{Request: grants.Request{Ref: q.Ref, Site: f.site(q.Registry).For(list)}, query: q.Query, accept: q.Accept}
}

// Tags gets a page of upstream's list of the repository's tags or, if upstream fails, the
// one that it last sent. Errors are *oci.Error, wait.ErrFull or ctx's, and come within
// 40 s. If Told of an *oci.Error is set, it is upstream's last answer. Close the List.
func (f *Fetcher) Tags(ctx context.Context, ref oci.Ref, query oci.Query) (*List, error) {
	ref.Tag, ref.Digest = "", ""
	return f.list(ctx, ref, query)
}

// Referrers gets a page of upstream's list of manifests that refer to ref.Digest, as Tags
// does.
func (f *Fetcher) Referrers(ctx context.Context, ref oci.Ref, query oci.Query) (*List, error) {
	ref.Tag = ""
	return f.list(ctx, ref, query)
}

// list gets a page. A refusal says nothing about the right to pull: some roles may pull
// and not list.
func (f *Fetcher) list(ctx context.Context, ref oci.Ref, query oci.Query) (*List, error) {
	list, err := f.lists.find(ctx, f.asked(oci.Question{Ref: ref, Query: query}))
	return list, explain(ctx, ref, "", err)
}

// find gets a page as upstream has it now, or if upstream fails as it last had it.
func (l *lists) find(ctx context.Context, q asked) (*List, error) {
	began := time.Now()
	limited, cancel := inTime(ctx, q.Ref)
	defer cancel()
	list, err := l.current(limited, q)
	if err == nil {
		return list, nil
	}
	err = oci.Lateness(q.Ref, err)
	l.words.hear(q, err)
	e, failed := fails(ctx, err)
	if !failed {
		return nil, err
	}
	return l.last(ctx, q, e, began)
}

// fails reports whether err says that the registry fails in a way that may pass, so that
// its last answer may stand in. Only the registry itself takes that back.
func fails(ctx context.Context, err error) (*oci.Error, bool) {
	e, ok := oci.AsError(err)
	if !ok || errors.Is(ctx.Err(), context.Canceled) {
		return nil, false
	}
	refusal := e.Kind == oci.Denied || e.Kind == oci.NotFound
	return e, e.LastWordCounts() || refusal && !e.Authoritative()
}

// current gets a page as upstream has it now, once for all who ask at the time: from the
// owner of its key or, if that is this node, from the registry.
func (l *lists) current(ctx context.Context, q asked) (*List, error) {
	key := q.question().Key()
	if l.mesh.Only(q.Registry, key) {
		return l.own(ctx, q)
	}
	return shareList(l.forClients.Do(ctx, key, func(ctx context.Context) (*List, error) {
		return mesh.Along(ctx, l.mesh, q.Ref, key,
			func(ctx context.Context) (*List, error) { return l.own(ctx, q) },
			func(ctx context.Context, p mesh.Peer) (*List, error) { return l.fromPeer(ctx, p, q, false) })
	}))
}

// forMember gets a page for another member: it does what is to be done if the registry
// fails.
func (l *lists) forMember(ctx context.Context, q asked) (*List, error) {
	list, err := l.own(ctx, q)
	if err != nil {
		l.words.hear(q, err)
		return nil, err
	}
	return list, nil
}

// own gets a page from the registry, once for all who ask at the time.
func (l *lists) own(ctx context.Context, q asked) (*List, error) {
	return shareList(l.forMembers.Do(ctx, q.question().Key(), func(ctx context.Context) (*List, error) { return l.fetch(ctx, q) }))
}

// shareList returns one caller's own use of a page that several use.
func shareList(list *List, joined bool, leave func(), err error) (*List, error) {
	if err != nil {
		return nil, err
	}
	own := *list
	own.Collapsed, own.leave = own.Collapsed || joined, leave
	return &own, nil
}

// fetch gets a page from the registry and keeps it.
func (l *lists) fetch(ctx context.Context, q asked) (*List, error) {
	if q.Offline {
		return nil, oci.OfflineError(q.Ref)
	}
	get := l.upstream.Tags
	if q.question().Resource() == oci.ReferrersResource {
		get = l.upstream.Referrers
	}
	way := oci.Provenance{Host: q.Registry, Checked: q.Shard.Pages.Knows(q.question()), At: time.Now()}
	list, err := l.takeIn(ctx, q, func(ctx context.Context, to oci.Sink) (*oci.Page, oci.Provenance, error) {
		if !q.Private { // a private registry's lists are for the registry alone to tell
			ctx = l.grants.WithMirrors(ctx, q.Request, q.question().Resource())
		}
		page, err := get(ctx, q.Ref, q.query, to)
		return page, way, err
	})
	if err == nil && list.Stored {
		l.words.relay.tell(q, list.Sum)
	}
	return list, err
}

// hear keeps the page that another member knows, if it is newer than this node's last
// answer.
func (l *lists) hear(ctx context.Context, from mesh.Peer, q asked, word mesh.Word) error {
	if own, known := l.words.own(q); known && (!word.At.After(own.Told) || word.Sum == own.Sum) {
		return nil
	}
	list, err := l.fromPeer(ctx, from, q, true)
	if err != nil {
		return err
	}
	return list.Close()
}

// fromPeer gets a page from another node and keeps it, too: either of them may be gone
// when the registry fails.
func (l *lists) fromPeer(ctx context.Context, p mesh.Peer, q asked, kept bool) (*List, error) {
	return l.takeIn(ctx, q, func(ctx context.Context, to oci.Sink) (*oci.Page, oci.Provenance, error) {
		return p.List(ctx, q.question(), kept, to)
	})
}

// takeIn gets a page and keeps it. What is no list is no answer of a registry: its last one
// stays.
func (l *lists) takeIn(ctx context.Context, q asked, get func(context.Context, oci.Sink) (*oci.Page, oci.Provenance, error)) (*List, error) {
	shelf := q.Shard.Pages
	draft := shelf.Draft(ctx, q.question(), q.Stranger, l.memory)
	defer func() { _ = draft.Close() }() // of no more use unless it was finished
	page, way, err := get(ctx, draft)
	if err != nil {
		return nil, err
	}
	resource := q.question().Resource()
	if err := oci.CheckList(draft.Reader(), resource); err != nil {
		return nil, &oci.Error{Kind: oci.Corrupt, Registry: q.Registry, Host: way.Host, By: page.By, Reason: "what the registry sent is not a list", Err: err}
	}
	l.grants.Grant(q.Request, resource, way.At)
	sheet, stored := draft.Finish(pages.Word{Told: way.At, Page: page})
	way.Stored = stored
	return &List{Sheet: sheet, Provenance: way}, nil
}

// kept opens the page that is the registry's last answer as this node knows it.
func (l *lists) kept(q asked) (*List, bool) {
	if w, ok := l.words.own(q); !ok || w.No != nil {
		return nil, false
	}
	sheet, ok := q.Shard.Pages.Open(q.question())
	if !ok {
		return nil, false
	}
	return &List{Sheet: sheet, Provenance: oci.Provenance{Origin: oci.Hit, At: sheet.Told}}, true
}

// last returns the registry's last answer, now that it fails in that way: a page, or an
// error that says since when there is none. The client waits since began.
func (l *lists) last(ctx context.Context, q asked, failed *oci.Error, began time.Time) (*List, error) {
	limited, cancel := context.WithDeadline(ctx, began.Add(promised))
	defer cancel()
	list, err := shareList(l.instead.Do(limited, q.question().Key(), func(ctx context.Context) (*List, error) {
		for _, p := range l.words.newer(ctx, q, began) {
			if list, err := l.fromPeer(ctx, p, q, true); err == nil {
				return list, nil
			}
		}
		if list, ok := l.kept(q); ok {
			return list, nil
		}
		return nil, oci.NotHeldError(q.Ref)
	}))
	if err != nil {
		var ok bool
		if list, ok = l.kept(q); !ok && q.query != "" && q.query.Whole() {
			q.query = "" // of that list, more may be known
			return l.last(ctx, q, failed, began)
		}
		if !ok {
			return nil, l.words.instead(q, failed)
		}
	}
	if list.Stale = failed; !list.Marked() {
		return list, nil
	}
	l.log.WarnContext(ctx, "stale list served", "registry", q.Registry, "image", q.Repository, "digest", q.Digest.String(),
		"checked", list.At, "error", failed)
	return list, nil
}
