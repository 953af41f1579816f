package node

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"oci-proxy/node/cluster"
	"oci-proxy/node/keeper"
	"oci-proxy/transfer/wait"
)

const (
	// verifyAsk and verifyAskAtMost are how often a member is asked how far it is: often
	// at first, then less.
	verifyAsk       = 20 * time.Millisecond
	verifyAskAtMost = time.Second
)

// A verifyLine is a line of the answer to /_/verify: about a blob that was wrong, about
// how far a node is, or at the end about all.
type verifyLine struct {
	Node     string            `json:"node,omitempty"`
	Digest   string            `json:"digest,omitempty"`
	Registry string            `json:"registry,omitempty"`
	Error    string            `json:"error,omitempty"`
	Blobs    int               `json:"blobs"`
	Of       int               `json:"of,omitempty"`
	Bytes    int64             `json:"bytes"`
	Bad      int               `json:"bad"` // blobs that were wrong, and are gone
	Failed   int               `json:"failed,omitempty"`
	Missing  []cluster.Missing `json:"missing,omitempty"`
	Done     bool              `json:"done,omitempty"`
}

// errNoProgress: a member did not understand.
var errNoProgress = errors.New("it did not tell how far it is")

// verify answers POST /_/verify: all members hash what they hold. The answer has a line of
// JSON for each blob that is wrong, more as the members go on, and one at the end.
func (s *steward) verify(w http.ResponseWriter, r *http.Request) {
	if !s.ask(w, r, new(struct{}), `{}`, func() error { return nil }) {
		return
	}
	lines(w, func(put func(any)) {
		members := cluster.Reachable(s.cluster)
		done := make([]verifyLine, len(members))
		var wg sync.WaitGroup
		for i, one := range members {
			if one.Err == nil {
				wg.Go(func() { done[i] = s.verifyAt(r.Context(), one, put) })
			}
		}
		wg.Wait()
		end := verifyLine{Done: true}
		for i, one := range members {
			end.Blobs += done[i].Blobs
			end.Bytes += done[i].Bytes
			end.Bad += done[i].Bad
			if one.Err != nil {
				end.Missing = append(end.Missing, cluster.Missing{Name: one.Name, Reason: one.Err.Error()})
			}
			if one.Err != nil || done[i].Error != "" {
				end.Failed++
			}
		}
		s.log.Info("cached content verified", "blobs", end.Blobs, "bytes", end.Bytes, "bad", end.Bad, "failed", end.Failed, "client", s.gate.Address(r).String())
		put(end)
	})
}

// verifyAt makes one member verify what it holds, and tells how far it is.
func (s *steward) verifyAt(ctx context.Context, one cluster.Held, put func(any)) verifyLine {
	v, l := keeper.Verify{}, verifyLine{Node: one.Name}
	for pause := verifyAsk; ; pause = min(2*pause, verifyAskAtMost) {
		a, err := s.order(ctx, one.ID, keeper.Order{Verify: &v})
		if err == nil && a.Progress == nil {
			err = errNoProgress
		}
		if err != nil {
			l.Error = err.Error()
			put(l)
			return l
		}
		p := a.Progress
		for _, bad := range p.Wrong {
			put(verifyLine{Node: one.Name, Digest: bad.Digest.String(), Registry: bad.Registry, Error: bad.Error})
		}
		v.Run, v.Known = p.Run, v.Known+len(p.Wrong)
		l.Blobs, l.Of, l.Bytes, l.Bad = p.Blobs, max(p.Of, p.Blobs), p.Bytes, p.Bad
		put(l)
		if p.Done {
			return l
		}
		if err := wait.For(ctx, pause); err != nil {
			l.Error = err.Error()
			return l
		}
	}
}
