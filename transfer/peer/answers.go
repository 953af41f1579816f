package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wire"
)

// answers answer what members ask, from a Holder.
type answers struct {
	cfg  ServerConfig
	time time.Duration // answerTime; tests shorten it
}

// newAnswers returns the answers of a node.
func newAnswers(cfg ServerConfig) *answers { return &answers{cfg: cfg, time: answerTime} }

// errNotMine: this node may not ask the registry.
var errNotMine = errors.New("this node may not ask the registry")

// mine refuses requests for registries that this node may not ask: they could
// lead to the registry, or make this node keep its content. Gossip is not exact
// about who may ask.
func (a *answers) mine(answer func(*reply, *call) error) func(*reply, *call) error {
	return func(w *reply, c *call) error {
		if a.cfg.Asks != nil && !a.cfg.Asks(c.Registry) {
			return errNotMine
		}
		return answer(w, c)
	}
}

// mineOrHeld is mine, but lets requests for held content through.
func (a *answers) mineOrHeld(answer func(*reply, *call) error) func(*reply, *call) error {
	mine := a.mine(answer)
	return func(w *reply, c *call) error {
		if c.Held {
			return answer(w, c)
		}
		return mine(w, c)
	}
}

// inTime bounds the wait for the registry. At its end the registry has failed.
func (a *answers) inTime(c *call) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(c.Context(), a.time, oci.LateError(c.Ref, nil))
}

// getBlob sends a blob.
func (a *answers) getBlob(w *reply, c *call) error {
	if c.Part.Length > 0 {
		c.Part.Offset = c.offset
	}
	given, err := a.cfg.Holder.Blob(c.Context(), c.Ref, c.Terms, c.sender)
	if err != nil {
		return err
	}
	defer func() { _ = given.Close() }() // only read
	if given.Redirect != "" && !isLocation(given.Redirect) {
		return malformed(c.Registry, "redirect")
	}
	h := w.Header()
	setProvenance(h, given.Provenance, a.cfg.Name, false)
	setFeeding(h, given.Feeding)
	if given.Redirect != "" {
		h.Set(headerRedirect, given.Redirect)
	}
	if given.Redirect != "" || given.Feeding.Feeder != "" {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	h.Set("Content-Type", "application/octet-stream")
	if c.Part.Length > 0 && c.Part.End() <= given.Size() {
		return a.sendPart(w, c, given)
	}
	size, n := given.Size(), int64(-1)
	status := wire.SpanFrom(c.offset, size).Describe(h, size)
	w.WriteHeader(status)
	if status == http.StatusRequestedRangeNotSatisfiable {
		return nil
	}
	_ = http.NewResponseController(w).Flush() // the header alone says that the blob is there
	if size >= 0 {
		n = size - c.offset
	}
	if _, err := given.Send(c.Context(), w, c.offset, n); err != nil {
		a.cfg.Log.Debug("sending a blob to a peer broke off", "peer", roster(a.cfg.Member).name(c.sender), "registry", c.Registry, "digest", c.Digest.String(), "error", err)
		panic(http.ErrAbortHandler) // so that the peer does not take it for the end
	}
	return nil
}

// sendPart sends a part of a blob and signs its bytes: nobody can verify them by the
// digest. They are read twice.
func (a *answers) sendPart(w *reply, c *call, given *mesh.Given) error {
	sum := sha256.New()
	if _, err := given.Send(c.Context(), sum, c.Part.Offset, c.Part.Length); err != nil {
		return fmt.Errorf("reading a part of a blob: %w", err)
	}
	h := w.Header()
	h.Set(headerBody, hex.EncodeToString(sum.Sum(nil)))
	w.WriteHeader(wire.Span{Offset: c.Part.Offset, Length: c.Part.Length, Partial: true}.Describe(h, given.Size()))
	if _, err := given.Send(c.Context(), w, c.Part.Offset, c.Part.Length); err != nil {
		a.cfg.Log.Debug("sending a blob to a peer broke off", "peer", roster(a.cfg.Member).name(c.sender), "registry", c.Registry, "digest", c.Digest.String(), "error", err)
		panic(http.ErrAbortHandler) // so that the peer does not take it for the end
	}
	return nil
}

// headBlob answers a peek, or tells a blob's size.
func (a *answers) headBlob(w *reply, c *call) error {
	h := w.Header()
	if c.Held {
		setPresence(h, a.cfg.Holder.Presence(c.Ref, c.sender))
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	ctx, cancel := a.inTime(c)
	defer cancel()
	size, prov, err := a.cfg.Holder.Stat(ctx, c.Ref)
	if err != nil {
		return err
	}
	setProvenance(h, prov, a.cfg.Name, false)
	if size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// getManifest sends a manifest.
func (a *answers) getManifest(w *reply, c *call) error {
	ctx, cancel := a.inTime(c)
	defer cancel()
	found, err := a.cfg.Holder.Manifest(ctx, c.Ref, c.Terms)
	if err != nil {
		return err
	}
	defer func() { _ = found.Close() }() // only read
	if err := tellable(c.Registry, found.MediaType); err != nil {
		return err
	}
	setProvenance(w.Header(), found.Provenance, a.cfg.Name, false)
	return sendManifest(c.Context(), w, found)
}

// getTag tells what a tag means.
func (a *answers) getTag(w *reply, c *call) error {
	ctx, cancel := a.inTime(c)
	defer cancel()
	found, err := a.cfg.Holder.Tag(ctx, c.Ref, c.accept)
	if err != nil {
		return err
	}
	defer func() { _ = found.Close() }() // only what it is counts
	if err := tellable(c.Registry, found.MediaType); err != nil {
		return err
	}
	setProvenance(w.Header(), found.Provenance, a.cfg.Name, true)
	return sendJSON(w, meaning{Digest: found.Digest.String(), MediaType: found.MediaType, Size: found.Size})
}

// getProgress tells how much of a blob is here.
func (a *answers) getProgress(w *reply, c *call) error {
	if c.Feed.Seat != "" {
		return sendJSON(w, a.cfg.Holder.Report(c.Ref, mesh.Report{Seat: c.Feed.Seat, Came: c.came}, c.sender))
	}
	p := a.cfg.Holder.Progress(c.Ref)
	p.Leaves = a.leaves()
	return sendJSON(w, p)
}

// leaves reports whether this node leaves for good.
func (a *answers) leaves() bool { return a.cfg.Leaves != nil && a.cfg.Leaves() }

// errLeaves: what this node takes would go with it.
var errLeaves = fmt.Errorf("this node leaves: %w", mesh.ErrUnwanted)

// postOffer takes a blob from the sender.
func (a *answers) postOffer(w *reply, c *call) error {
	var o offer
	if err := json.Unmarshal(c.body, &o); err != nil {
		return fmt.Errorf("reading an offer: %w", err)
	}
	ref := oci.Ref{Registry: o.Registry}
	d, err := parseDigest(o.Digest)
	if err != nil || o.Registry != c.Registry || !ref.WellFormed() || !visible(o.MediaType, maxWord) {
		return errors.New("reading an offer: it is malformed")
	}
	ref.Digest = d
	from, end := a.cfg.Peer(c.sender)
	defer end()
	if from == nil {
		return errors.New("taking an offered blob: its sender can't be asked")
	}
	switch {
	case a.leaves():
		err = errLeaves
	case o.Copy:
		err = a.cfg.Holder.TakeCopy(c.Context(), from, ref, o.MediaType, max(o.Size, 0))
	default:
		err = a.cfg.Holder.Take(c.Context(), from, ref, o.MediaType)
	}
	if err != nil {
		return fmt.Errorf("taking an offered blob: %w", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// postRefusal hears that a registry refused the sender a repository, or does not
// have a digest or tag there; or that it answered a question.
func (a *answers) postRefusal(w *reply, c *call) error {
	switch {
	case c.told:
		from, end := a.cfg.Peer(c.sender)
		defer end()
		if from != nil {
			a.cfg.Holder.Told(from, c.question())
		}
	case !c.lost:
		a.cfg.Holder.Refused(c.Ref)
	case c.blob:
		a.cfg.Holder.Lost(c.Ref, oci.BlobResource)
	default:
		a.cfg.Holder.Lost(c.Ref, oci.ManifestResource)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// postPause hears that a registry asks to be left alone.
func (a *answers) postPause(w *reply, c *call) error {
	if a.cfg.Pause != nil && c.pause > 0 {
		a.cfg.Pause(c.Registry, min(c.pause, longestPause))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// getStats sends the node's counters.
func (a *answers) getStats(w *reply, c *call) error {
	b, err := encodeJSON(a.cfg.Stats())
	if err != nil {
		return err
	}
	return send(w, "application/json", padded(c, b))
}

// getPing shows that the node lives.
func (a *answers) getPing(w *reply, c *call) error {
	if b := padded(c, nil); len(b) > 0 {
		return send(w, "text/plain", b)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// padded returns b with spaces at its end, if it is short and the call is padded too.
func padded(c *call, b []byte) []byte {
	if c.Header.Get(headerPadding) == "" {
		return b
	}
	return append(b, bytes.Repeat([]byte{' '}, max(0, padding-len(b)))...)
}

// tellable refuses a media type that the other node would not take. The registry
// made it up, and this node is not to be blamed for it.
func tellable(registry, mediaType string) error {
	if visible(mediaType, maxWord) {
		return nil
	}
	return malformed(registry, "media type")
}

// malformed is the failure of a registry whose answer can't be passed on.
func malformed(registry, what string) error {
	return &oci.Error{Kind: oci.Corrupt, Registry: registry, Reason: "the registry's " + what + " is malformed or too long"}
}

// send sends a small answer. The peer notices if part of it can't be sent.
func send(w *reply, mediaType string, b []byte) error {
	begin(w, mediaType, int64(len(b)), bodySum(b))
	_, _ = w.Write(b)
	return nil
}

// begin writes the header of an answer of n bytes with that sum.
func begin(w *reply, mediaType string, n int64, sum string) {
	h := w.Header()
	h["Content-Type"] = []string{mediaType} // an empty one too, so that net/http does not guess
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	h.Set(headerBody, sum)
	w.WriteHeader(http.StatusOK)
}

// sendManifest sends a manifest. A large one is not read into memory. Its digest is the
// sum of its bytes, or they are read once more for the sum.
func sendManifest(ctx context.Context, w *reply, found *oci.Found) error {
	if found.Body == nil {
		return send(w, found.MediaType, found.Bytes)
	}
	sum := found.Digest.Encoded()
	if found.Digest.Algorithm() != digest.SHA256 {
		h := sha256.New()
		if _, err := found.Send(ctx, h, 0, found.Size); err != nil {
			return fmt.Errorf("reading a manifest: %w", err)
		}
		sum = hex.EncodeToString(h.Sum(nil))
	}
	begin(w, found.MediaType, found.Size, sum)
	if _, err := found.Send(ctx, w, 0, found.Size); err != nil {
		panic(http.ErrAbortHandler) // so that the peer does not take it for the end
	}
	return nil
}

// sendJSON sends v.
func sendJSON(w *reply, v any) error {
	b, err := encodeJSON(v)
	if err != nil {
		return err
	}
	return send(w, "application/json", b)
}

// encodeJSON encodes v, if that fits in an answer.
func encodeJSON(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("writing an answer: %w", err)
	}
	if len(b) > maxJSON {
		return nil, fmt.Errorf("writing an answer: %d bytes of JSON are over the limit of %d", len(b), maxJSON)
	}
	return b, nil
}
