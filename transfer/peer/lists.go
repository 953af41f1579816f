package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// question is what a request for a list, or for what is kept, is about.
func (q query) question() oci.Question {
	return oci.Question{Ref: q.Ref, Query: q.list, Accept: q.accept}
}

// getList sends a page of tags or referrers: from the registry, or what is kept.
func (a *answers) getList(w *reply, c *call) error {
	q := c.question()
	switch {
	case c.peek && c.Held:
		return a.peekList(w, q)
	case c.Held:
		kept, err := a.cfg.Holder.Kept(q)
		return a.sendList(w, c, kept, err)
	default:
		ctx, cancel := a.inTime(c)
		defer cancel()
		q.Tag, q.Accept = "", nil // earlier versions take no notice either
		list, err := a.cfg.Holder.List(ctx, q)
		return a.sendList(w, c, list, err)
	}
}

// peekList tells what is kept.
func (a *answers) peekList(w *reply, q oci.Question) error {
	word, known := a.cfg.Holder.LastWord(q)
	if !known {
		return oci.NotHeldError(q.Ref)
	}
	h := w.Header()
	setProvenance(h, oci.Provenance{Origin: oci.Hit, At: word.At}, a.cfg.Name, true)
	h.Set(headerPresence, presences[mesh.Held])
	switch {
	case word.No != nil:
		h.Set(headerError, encodeError(word.No))
	case word.Tag != nil:
		return a.peekTag(w, q.Registry, word)
	default:
		h.Set(headerSum, word.Sum)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// peekTag tells what is known of a tag's meaning.
func (a *answers) peekTag(w *reply, registry string, word mesh.Word) error {
	if err := tellable(registry, word.Tag.MediaType); err != nil {
		return err
	}
	b, err := encodeJSON(meaning{Digest: word.Tag.Digest.String(), MediaType: word.Tag.MediaType, Size: word.Tag.Size, Loose: word.Loose})
	if err != nil {
		return err
	}
	w.Header().Set(headerMeaning, string(b))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// sendList sends a page, or returns err.
func (a *answers) sendList(w *reply, c *call, list *mesh.List, err error) error {
	if err != nil {
		return err
	}
	defer func() { _ = list.Close() }() // only read
	h := w.Header()
	if err := setPage(h, c.Registry, &list.Page); err != nil {
		return err
	}
	setProvenance(h, list.Provenance, a.cfg.Name, true)
	size, sum := list.Describe()
	h["Content-Type"] = []string{list.MediaType} // an empty one too, so that net/http does not guess
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	h.Set(headerBody, sum)
	w.WriteHeader(http.StatusOK)
	if err := list.Send(w); err != nil {
		a.cfg.Log.Debug("sending a list to a peer broke off", "peer", roster(a.cfg.Member).name(c.sender), "registry", c.Registry, "error", err)
		panic(http.ErrAbortHandler) // so that the peer does not take it for the end
	}
	return nil
}

// setPage tells what the header says of a page.
func setPage(h http.Header, registry string, page *oci.Page) error {
	if err := tellable(registry, page.MediaType); err != nil {
		return err
	}
	if len(page.Next) > maxNext {
		return malformed(registry, "link to the next page")
	}
	if page.Next != "" {
		h.Set(headerNext, string(page.Next))
	}
	if f := printable(page.Filters, maxWord); f != "" {
		h.Set(headerFilters, f)
	}
	return nil
}

// askList is the request about a list, or for what is kept of a question.
func askList(q oci.Question, held, peek bool) ask {
	path := "lists/tags"
	if q.Resource() == oci.ReferrersResource {
		path = "lists/referrers"
	}
	return ask{method: http.MethodGet, path: root + path, query: query{
		Ref: q.Ref, Terms: mesh.Terms{Held: held}, list: q.Query, accept: q.Accept, inList: q.Digest != "", peek: peek,
	}}
}

// List implements mesh.Peer.
func (p *remote) List(ctx context.Context, q oci.Question, kept bool, to oci.Sink) (*oci.Page, oci.Provenance, error) {
	a, err := p.client.into(ctx, p.id, askList(q, kept, false), maxList, p.client.times.call, to)
	if err != nil {
		return nil, oci.Provenance{}, err
	}
	prov, err := p.provenance(a, q.Ref)
	if err != nil {
		return nil, prov, err
	}
	page, err := readPage(a.Header)
	if err != nil {
		return nil, prov, p.client.garbled(a.link, err)
	}
	return page, prov, nil
}

// readPage reads what the header says of a page. The registry sent it, says a member.
func readPage(h http.Header) (*oci.Page, error) {
	page := &oci.Page{MediaType: h.Get("Content-Type"), Filters: h.Get(headerFilters), By: oci.Registry}
	if !isManifest(page.MediaType) {
		return nil, errors.New("its page is not a list")
	}
	next := h.Get(headerNext)
	page.Next = oci.ListQuery(next)
	if string(page.Next) != next || len(next) > maxNext || !visible(page.Filters, maxWord) {
		return nil, errors.New("its page is malformed")
	}
	return page, nil
}

// LastWord implements mesh.Peer. It takes at most 2 s.
func (p *remote) LastWord(ctx context.Context, q oci.Question) (mesh.Word, error) {
	a, err := p.client.into(ctx, p.id, askList(q, true, true), maxList, p.client.times.progress, nowhereTo{})
	if err != nil {
		return mesh.Word{}, err
	}
	prov, err := p.provenance(a, q.Ref)
	if err != nil {
		return mesh.Word{}, err
	}
	if a.Header.Get(headerPresence) != presences[mesh.Held] { // a member of an earlier version, which keeps no lists
		return mesh.Word{}, oci.NotHeldError(q.Ref)
	}
	w := mesh.Word{At: prov.At, Sum: a.Header.Get(headerSum)}
	if s := a.Header.Get(headerError); s != "" {
		if w.No, err = decodeError(s, q.Registry); err != nil {
			return mesh.Word{}, p.client.garbled(a.link, fmt.Errorf("what it knows of a list: %w", err))
		}
	}
	if s := a.Header.Get(headerMeaning); s != "" {
		m, err := readMeaning([]byte(s))
		if err != nil {
			return mesh.Word{}, p.client.garbled(a.link, err)
		}
		w.Loose, w.Tag = m.Loose, &oci.Descriptor{Digest: digest.Digest(m.Digest), MediaType: m.MediaType, Size: m.Size}
	}
	return w, nil
}

// nowhereTo is a sink for what is not wanted.
type nowhereTo struct{}

// Write implements io.Writer.
func (nowhereTo) Write(p []byte) (int, error) { return io.Discard.Write(p) }

// Reset implements oci.Sink.
func (nowhereTo) Reset() {}
