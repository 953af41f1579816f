package mesh

import (
	"context"
	"errors"
	"sync/atomic"

	"oci-proxy/transfer/oci"
)

// A reason says in a word why a peer was passed over.
type reason int

// The reasons.
const (
	forFailed   reason = iota // nobody answers, or not as a member does
	forHangs                  // it does not go on
	forSlow                   // it or the link to it crawls
	forLies                   // it sent wrong bytes
	forBusy                   // it asked to come back, and there was no time for that
	forLacks                  // it does not have the content
	forRegistry               // it says that the registry fails
	forNoWay                  // it does not reach the registry
	reasons                   // how many there are
)

// reasonNames are the reasons as they are shown.
var reasonNames = [reasons]string{"failed", "hangs", "slow", "lies", "busy", "lacks", "registry", "no_way"}

// reasonOf returns the reason that err tells.
func reasonOf(err error) reason {
	e, spoken := oci.AsError(err)
	p, own := errors.AsType[*PeerError](err)
	switch {
	case spoken && e.Unreached:
		return forNoWay
	case spoken && e.Kind == oci.NotFound:
		return forLacks
	case spoken:
		return forRegistry
	case own && p.Busy:
		return forBusy
	case errors.Is(err, ErrHangs):
		return forHangs
	case errors.Is(err, ErrCrawls), errors.Is(err, ErrDrips), errors.Is(err, ErrSlow):
		return forSlow
	case errors.Is(err, ErrLies):
		return forLies
	default:
		return forFailed
	}
}

// A tally counts peers that were passed over.
type tally [reasons]atomic.Int64

// add counts one.
func (t *tally) add(r reason) { t[r].Add(1) }

// counts returns how many there are of each reason.
func (t *tally) counts() map[string]int64 {
	out := make(map[string]int64, reasons)
	for r := range t {
		out[reasonNames[r]] = t[r].Load()
	}
	return out
}

// Passed returns how many peers were passed over since start, by reason.
func (m *Mesh) Passed() map[string]int64 { return m.passed.counts() }

// FeedersLeft returns how many feeders were left since start, by reason.
func (m *Mesh) FeedersLeft() map[string]int64 { return m.left.counts() }

// LeaveFeeder logs and counts that a member that was to feed this node is left. It need not
// have failed: it may have left its own.
func (m *Mesh) LeaveFeeder(ctx context.Context, ref oci.Ref, p Peer, err error) {
	m.left.add(reasonOf(err))
	m.cfg.Log.InfoContext(ctx, "feeder left", "peer", p.Name(), "registry", ref.Registry, "image", ref.Repository, "digest", ref.Digest.String(), "error", err)
}
