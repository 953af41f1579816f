package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wire"
)

// A route is one thing that can be asked.
type route struct {
	slots  slots            // nil: it is so cheap that it is always answered
	refers bool             // it has parameters
	needs  func(query) bool // whether they name enough; nil: the registry will do
	answer func(*wire.Paced, *call) error
}

// complete reports whether the parameters name all that is needed.
func (r route) complete(q query) bool { return r.needs == nil || r.needs(q) }

// What the parameters of a request have to name.
func repository(q query) bool { return q.Repository != "" }
func tag(q query) bool        { return q.Repository != "" && q.Tag != "" }
func digested(q query) bool   { return q.Repository != "" && q.Digest != "" }

// orHeld lets what is offered be got: an offer knows no repository.
func orHeld(q query) bool { return q.Repository != "" || q.Held }

// routes lists all that can be asked, by method and path; a path that ends in /
// is followed by a digest.
func (s *Server) routes() map[string]route {
	return map[string]route{
		"GET blobs/":          {s.bulk, true, orHeld, s.mineOrHeld(s.getBlob)},
		"HEAD blobs/":         {s.control, true, orHeld, s.mineOrHeld(s.headBlob)},
		"GET manifests/":      {s.control, true, repository, s.mineOrHeld(s.getManifest)},
		"GET tags":            {s.control, true, tag, s.mine(s.getTag)},
		"GET lists/tags":      {s.list, true, repository, s.mine(s.getTags)},
		"GET lists/referrers": {s.list, true, digested, s.mine(s.getReferrers)},
		"GET progress/":       {nil, true, nil, s.getProgress},
		"POST offers":         {s.control, true, nil, s.mine(s.postOffer)},
		"POST refusals":       {s.control, true, repository, s.postRefusal},
		"GET stats":           {s.control, false, nil, s.getStats},
		"GET ping":            {nil, false, nil, s.getPing},
	}
}

// errNotMine: this node may not ask the registry.
var errNotMine = errors.New("not a registry that this node asks")

// mine answers requests that may lead to the registry, or make this node keep
// what is the registry's, where it may ask that. What gossip tells of who may is
// not exact.
func (s *Server) mine(answer func(*wire.Paced, *call) error) func(*wire.Paced, *call) error {
	return func(w *wire.Paced, c *call) error {
		if s.cfg.Asks != nil && !s.cfg.Asks(c.Registry) {
			return errNotMine
		}
		return answer(w, c)
	}
}

// mineOrHeld is mine for what can be asked for where it is held, too.
func (s *Server) mineOrHeld(answer func(*wire.Paced, *call) error) func(*wire.Paced, *call) error {
	mine := s.mine(answer)
	return func(w *wire.Paced, c *call) error {
		if c.Held {
			return answer(w, c)
		}
		return mine(w, c)
	}
}

// Routes lists all that can be asked, by method and path; a path that ends in /
// is followed by a digest.
func (s *Server) Routes() []string {
	var out []string
	for key := range s.table {
		method, path, _ := strings.Cut(key, " ")
		out = append(out, method+" "+root+path)
	}
	return out
}

// route finds what a path behind the root asks for, and the digest in it.
func (s *Server) route(method, path string) (to route, named string, ok bool) {
	if dir, last, is := strings.Cut(path, "/"); is && dir != "lists" {
		path, named = dir+"/", last
		if last == "" {
			return to, "", false
		}
	}
	to, ok = s.table[method+" "+path]
	return to, named, ok
}

// inTime bounds the waiting for the registry. When it is over, it is the
// registry that failed.
func (s *Server) inTime(c *call) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(c.Context(), s.answerTime, late(c.Registry))
}

// late is the failure of a registry that does not answer.
func late(registry string) *oci.Error {
	return &oci.Error{Kind: oci.Timeout, Registry: registry, Reason: "no answer in time"}
}

// getBlob sends a blob.
func (s *Server) getBlob(w *wire.Paced, c *call) error {
	a, err := s.cfg.Holder.Blob(c.Context(), c.Ref, c.Terms, c.sender)
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }() // only read
	if a.Redirect != "" && !isLocation(a.Redirect) {
		return malformed(c.Registry, "redirect")
	}
	h := w.Header()
	setWay(h, a.Provenance, s.cfg.Name, false)
	if a.Redirect != "" {
		h.Set(headerRedirect, a.Redirect)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	h.Set("Content-Type", "application/octet-stream")
	size, n := a.Size(), int64(-1)
	status := wire.SpanFrom(c.offset, size).Describe(h, size)
	w.WriteHeader(status)
	if status == http.StatusRequestedRangeNotSatisfiable {
		return nil
	}
	_ = http.NewResponseController(w).Flush() // the header alone says that the blob is there
	if size >= 0 {
		n = size - c.offset
	}
	if _, err := a.Send(c.Context(), w, c.offset, n); err != nil {
		s.cfg.Log.Debug("blob for a peer broke off", "peer", s.name(c.sender), "registry", c.Registry, "digest", c.Digest.String(), "error", err)
		panic(http.ErrAbortHandler) // so that the peer can't take it for the end
	}
	return nil
}

// headBlob answers a peek, or tells a blob's size.
func (s *Server) headBlob(w *wire.Paced, c *call) error {
	h := w.Header()
	if c.Held {
		h.Set(headerPresence, presences[s.cfg.Holder.Presence(c.Ref, c.sender)])
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	ctx, cancel := s.inTime(c)
	defer cancel()
	size, way, err := s.cfg.Holder.Stat(ctx, c.Ref)
	if err != nil {
		return err
	}
	setWay(h, way, s.cfg.Name, false)
	if size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// getManifest sends a manifest.
func (s *Server) getManifest(w *wire.Paced, c *call) error {
	ctx, cancel := s.inTime(c)
	defer cancel()
	found, err := s.cfg.Holder.Manifest(ctx, c.Ref, c.Terms)
	if err != nil {
		return err
	}
	if err := tellable(c.Registry, found.MediaType); err != nil {
		return err
	}
	setWay(w.Header(), found.Provenance, s.cfg.Name, false)
	return send(w, found.MediaType, found.Bytes)
}

// getTag tells what a tag means.
func (s *Server) getTag(w *wire.Paced, c *call) error {
	ctx, cancel := s.inTime(c)
	defer cancel()
	found, err := s.cfg.Holder.Tag(ctx, c.Ref, c.accept)
	if err != nil {
		return err
	}
	if err := tellable(c.Registry, found.MediaType); err != nil {
		return err
	}
	setWay(w.Header(), found.Provenance, s.cfg.Name, true)
	return sendJSON(w, meaning{Digest: found.Digest.String(), MediaType: found.MediaType, Size: found.Size})
}

// getTags sends a page of tags.
func (s *Server) getTags(w *wire.Paced, c *call) error {
	ctx, cancel := s.inTime(c)
	defer cancel()
	page, err := s.cfg.Holder.Tags(ctx, c.Ref, c.list)
	return sendPage(w, c, page, err)
}

// getReferrers sends a page of referrers.
func (s *Server) getReferrers(w *wire.Paced, c *call) error {
	ctx, cancel := s.inTime(c)
	defer cancel()
	page, err := s.cfg.Holder.Referrers(ctx, c.Ref, c.list)
	return sendPage(w, c, page, err)
}

// getProgress tells how far a blob is.
func (s *Server) getProgress(w *wire.Paced, c *call) error {
	return sendJSON(w, s.cfg.Holder.Progress(c.Ref))
}

// postOffer takes a blob from the sender.
func (s *Server) postOffer(w *wire.Paced, c *call) error {
	var o offer
	if err := json.Unmarshal(c.body, &o); err != nil {
		return fmt.Errorf("reading an offer: %w", err)
	}
	ref := oci.Ref{Registry: o.Registry}
	d, err := parseDigest(o.Digest)
	if err != nil || o.Registry != c.Registry || !ref.WellFormed() || !visible(o.MediaType, maxWord) {
		return errors.New("reading an offer: it names nothing that can be taken")
	}
	ref.Digest = d
	from := s.cfg.Peer(c.sender)
	if from == nil {
		return errors.New("taking what is offered: its sender can't be asked")
	}
	if err := s.cfg.Holder.Take(c.Context(), from, ref, o.MediaType); err != nil {
		return fmt.Errorf("taking what is offered: %w", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// postRefusal hears that a registry refused the sender a repository.
func (s *Server) postRefusal(w *wire.Paced, c *call) error {
	s.cfg.Holder.Refused(c.Ref)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// getStats tells what the node counts.
func (s *Server) getStats(w *wire.Paced, _ *call) error { return sendJSON(w, s.cfg.Stats()) }

// getPing shows that the node lives.
func (s *Server) getPing(w *wire.Paced, _ *call) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// tellable refuses a media type that the other node would not take: it is the
// registry's, and that node is not to blame this one for it.
func tellable(registry, mediaType string) error {
	if visible(mediaType, maxWord) {
		return nil
	}
	return malformed(registry, "media type")
}

// malformed is the failure of a registry that says what can't be passed on.
func malformed(registry, what string) error {
	return &oci.Error{Kind: oci.Corrupt, Registry: registry, Reason: "the registry's " + what + " is malformed or too long"}
}

// send sends a small answer. It takes no error: what can't be sent, the peer
// sees.
func send(w *wire.Paced, mediaType string, b []byte) error {
	h := w.Header()
	h["Content-Type"] = []string{mediaType} // also an empty one: nobody is to guess
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b)
	return nil
}

// sendJSON sends v.
func sendJSON(w *wire.Paced, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing an answer: %w", err)
	}
	if len(b) > maxJSON {
		return fmt.Errorf("writing an answer: %d bytes of JSON are too many", len(b))
	}
	return send(w, "application/json", b)
}

// sendPage sends a page, unless there is an error.
func sendPage(w *wire.Paced, c *call, page *oci.Page, err error) error {
	if err != nil {
		return err
	}
	if err := tellable(c.Registry, page.MediaType); err != nil {
		return err
	}
	h := w.Header()
	set := func(key, val string) {
		if val != "" {
			h.Set(key, val)
		}
	}
	next := page.Next.Encode()
	if len(next) > maxNext {
		return malformed(c.Registry, "link to the next page")
	}
	set(headerNext, next)
	set(headerFilters, printable(page.Filters, maxWord))
	return send(w, page.MediaType, page.Bytes)
}
