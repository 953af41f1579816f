package peer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// What relayed answers that are sent whole share of this node's memory. A list is the
// largest; half of the bytes may be one answer's.
const (
	relayMemory   = 2 * (maxList + 1<<20)
	relayCrowd    = 256
	relayPatience = 20 * time.Second // less than answerTime, so that the asker hears the reason
)

// relays answer members that ask a registry by way of this node. Nothing of it is kept, and
// no third node is asked: out is this node's own way.
type relays struct {
	*answers
	out    oci.Upstream
	memory *wait.Budget
}

// newRelays returns the relays of a node.
func newRelays(a *answers) *relays {
	return &relays{answers: a, out: a.cfg.Out, memory: wait.NewBudget(relayMemory, relayCrowd, relayPatience)}
}

// open refuses requests that this node does not relay. Mirrors, as this node's config names
// them, may answer if they may at the sender.
func (r *relays) open(answer func(*reply, *call) error) func(*reply, *call) error {
	return r.heed(r.mine(func(w *reply, c *call) error {
		if r.out == nil || r.cfg.Relays != nil && !r.cfg.Relays(c.Registry) {
			return errNotMine
		}
		if c.mirror {
			c.Request = c.WithContext(oci.WithMirrors(c.Context()))
		}
		return answer(w, c)
	}), nil)
}

// held runs answer with a context that bounds the wait for the registry, and memory for what
// comes.
func (r *relays) held(c *call, answer func(context.Context, *wait.Claim) error) error {
	claim := r.memory.Claim()
	defer claim.Release()
	ctx, cancel := r.inTime(c)
	defer cancel()
	err := answer(wait.WithClaim(ctx, claim), claim)
	if errors.Is(err, wait.ErrFull) || errors.Is(err, wait.ErrTooLarge) {
		return oci.BusyError(c.Registry, err)
	}
	return err
}

// getBlob sends a blob as the registry sends it.
func (r *relays) getBlob(w *reply, c *call) error {
	if c.Part.Length > 0 {
		return r.held(c, func(ctx context.Context, claim *wait.Claim) error { return r.sendPart(ctx, claim, w, c) })
	}
	s, err := r.out.Open(c.Context(), c.Ref, c.offset)
	if err != nil {
		return err
	}
	if done, err := r.begin(w, c, s); done || err != nil {
		return err
	}
	defer func() { _ = s.Body.Close() }() // only read
	if s.Size >= 0 && s.Coding == "" {    // else nobody knows how many bytes come
		w.Header().Set("Content-Length", strconv.FormatInt(s.Size-s.Offset, 10))
	}
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush() // the header alone says that the registry has it
	if err := pass(w, s.Body); err != nil {
		r.cfg.Log.Debug("relaying a blob broke off", "peer", roster(r.cfg.Member).name(c.sender), "registry", c.Registry, "digest", c.Digest.String(), "error", err)
		panic(http.ErrAbortHandler) // so that the peer does not take it for the end
	}
	return nil
}

// begin writes what the header says of a stream. done says that there is nothing else.
func (r *relays) begin(w *reply, c *call, s *oci.Stream) (done bool, err error) {
	err = told{
		Size: s.Size, Offset: s.Offset, Host: s.Host, By: s.By.String(), Coding: s.Coding, Redirect: s.Redirect,
	}.set(w.Header(), c.Registry)
	switch {
	case err != nil && s.Body != nil:
		_ = s.Body.Close() // nothing of it is wanted
	case err == nil && s.Redirect != "":
		w.WriteHeader(http.StatusNoContent)
		return true, nil
	case err == nil:
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	return false, err
}

// passing is how many bytes are passed on at once.
const passing = 64 << 10

// pass passes on what comes, as it comes: what has come must not wait for more.
func pass(w *reply, from io.Reader) error {
	control := http.NewResponseController(w)
	buf := make([]byte, passing)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return fmt.Errorf("sending: %w", err)
			}
		}
		if n > 0 && n < len(buf) {
			_ = control.Flush() // what can't be sent is noticed at the next write
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading: %w", err)
		}
	}
}

// sendPart sends a range of a blob, and signs its bytes: nobody can verify them by the
// digest.
func (r *relays) sendPart(ctx context.Context, claim *wait.Claim, w *reply, c *call) error {
	c.Part.Offset = c.offset
	if err := claim.Grow(ctx, c.Part.Length); err != nil {
		return fmt.Errorf("relaying a range: %w", err)
	}
	s, err := r.out.Range(ctx, c.Ref, c.Part)
	if err != nil {
		return err
	}
	if done, err := r.begin(w, c, s); done || err != nil {
		return err
	}
	defer func() { _ = s.Body.Close() }() // only read
	part := make([]byte, c.Part.Length)
	if _, err := io.ReadFull(s.Body, part); err != nil {
		return &oci.Error{Kind: oci.Unavailable, Registry: c.Registry, Host: s.Host, By: s.By, Reason: "a range of a blob did not come", Err: err}
	}
	return send(w, "application/octet-stream", part)
}

// acceptOf is the Accept list that the sender would have sent the registry. Not all of it can
// be a parameter.
func acceptOf(c *call) []string {
	if c.blob {
		return nil
	}
	return oci.Acceptable(c.accept)
}

// getHead tells what the registry says of a blob or a manifest, and sends the manifest if one
// came.
func (r *relays) getHead(w *reply, c *call) error {
	return r.held(c, func(ctx context.Context, _ *wait.Claim) error {
		d, err := r.out.Stat(ctx, c.Ref, c.blob, acceptOf(c))
		if err != nil {
			return err
		}
		t := told{Digest: d.Digest.String(), Size: d.Size, By: d.By.String(), Redirect: d.Redirect, Type: d.MediaType}
		var body []byte
		if d.Manifest != nil {
			t.Digest, t.Type, t.By, body = d.Manifest.Digest.String(), d.Manifest.MediaType, d.Manifest.By.String(), d.Manifest.Bytes
		}
		if err := t.set(w.Header(), c.Registry); err != nil {
			return err
		}
		return send(w, "application/octet-stream", body)
	})
}

// getManifest sends a manifest as the registry sends it.
func (r *relays) getManifest(w *reply, c *call) error {
	return r.held(c, func(ctx context.Context, _ *wait.Claim) error {
		m, err := r.out.Manifest(ctx, c.Ref, acceptOf(c))
		if err != nil {
			return err
		}
		t := told{Digest: m.Digest.String(), Size: int64(len(m.Bytes)), By: m.By.String(), Type: m.MediaType}
		if err := t.set(w.Header(), c.Registry); err != nil {
			return err
		}
		return send(w, "application/octet-stream", m.Bytes)
	})
}

// getTags sends a page of tags.
func (r *relays) getTags(w *reply, c *call) error { return r.sendPage(w, c, r.out.Tags) }

// getReferrers sends a page of referrers.
func (r *relays) getReferrers(w *reply, c *call) error { return r.sendPage(w, c, r.out.Referrers) }

// sendPage sends a page as the registry sends it.
func (r *relays) sendPage(w *reply, c *call, get func(context.Context, oci.Ref, oci.Query, oci.Sink) (*oci.Page, error)) error {
	return r.held(c, func(ctx context.Context, claim *wait.Claim) error {
		sheet := &sheet{ctx: ctx, claim: claim, sum: sha256.New()}
		page, err := get(ctx, c.Ref, c.list, sheet)
		if err != nil {
			return err
		}
		if err := (told{Size: sheet.size, By: page.By.String()}).set(w.Header(), c.Registry); err != nil {
			return err
		}
		if err := setPage(w.Header(), c.Registry, page); err != nil {
			return err
		}
		begin(w, page.MediaType, sheet.size, hex.EncodeToString(sheet.sum.Sum(nil)))
		for _, piece := range sheet.pieces {
			if _, err := w.Write(piece); err != nil {
				panic(http.ErrAbortHandler) // so that the peer does not take it for the end
			}
		}
		return nil
	})
}

// sheetPiece is how large a sheet's pieces are, in bytes.
const sheetPiece = 64 << 10

// A sheet is a page in memory, which it claims as the page grows. It grows by pieces, so that
// no byte is copied twice.
type sheet struct {
	ctx    context.Context // bounds the wait for memory
	claim  *wait.Claim
	sum    hash.Hash
	pieces [][]byte
	size   int64
}

// Reset implements oci.Sink.
func (s *sheet) Reset() {
	s.claim.Release()
	s.sum.Reset()
	s.pieces, s.size = nil, 0
}

// Write implements io.Writer.
func (s *sheet) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		last := len(s.pieces) - 1
		if last < 0 || len(s.pieces[last]) == sheetPiece {
			if err := s.claim.Grow(s.ctx, sheetPiece); err != nil {
				return n - len(p), fmt.Errorf("relaying a list: %w", err)
			}
			s.pieces = append(s.pieces, make([]byte, 0, sheetPiece))
			last++
		}
		k := min(len(p), sheetPiece-len(s.pieces[last]))
		s.pieces[last] = append(s.pieces[last], p[:k]...)
		_, _ = s.sum.Write(p[:k]) // never fails
		s.size += int64(k)
		p = p[k:]
	}
	return n, nil
}
