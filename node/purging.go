package node

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/cluster"
	"oci-proxy/node/keeper"
	"oci-proxy/transfer/holdings"
)

// A purgeLine is a line of the answer to /_/purge: about an image, about how far a node
// is, or at the end about all.
type purgeLine struct {
	Image   string            `json:"image,omitempty"`
	Digest  string            `json:"digest,omitempty"`
	Pattern string            `json:"pattern,omitempty"` // that chooses nothing
	Node    string            `json:"node,omitempty"`
	Error   string            `json:"error,omitempty"` // why it stays, or was not done
	Blobs   int               `json:"blobs"`           // of a node: so far; at the end: of all nodes, copies counted
	Of      int               `json:"of,omitempty"`
	Bytes   int64             `json:"bytes"` // of an image: that nothing else needs
	Images  int               `json:"images,omitempty"`
	Tags    int               `json:"tags,omitempty"`
	Failed  int               `json:"failed,omitempty"`
	DryRun  bool              `json:"dry_run,omitempty"`
	Missing []cluster.Missing `json:"missing,omitempty"`
	Done    bool              `json:"done,omitempty"`
}

// purge answers POST /_/purge, {"patterns": [PATTERN…], "dry_run": bool}: all members
// forget the images, and what nothing else needs. The answer has a line of JSON for each
// image, more as the members go on, and one at the end.
func (s *steward) purge(w http.ResponseWriter, r *http.Request) {
	const want = `{"patterns": ["registry/repository:tag with * and **", …], "dry_run": true to change nothing}`
	var ask struct {
		Patterns []string `json:"patterns"`
		DryRun   bool     `json:"dry_run"`
	}
	var patterns []holdings.Pattern
	parse := func() (err error) {
		if patterns, err = s.patterns(ask.Patterns); err == nil && len(patterns) == 0 {
			err = errUnasked
		}
		return err
	}
	if !s.ask(w, r, &ask, want, parse) {
		return
	}
	lines(w, func(put func(any)) {
		now := s.look(r.Context())
		plan := now.merged.Plan(now.images, patterns)
		end := purgeLine{Done: true, DryRun: ask.DryRun, Missing: now.missing()}
		tellPlan(plan, &end, put)
		if ask.DryRun {
			end.Blobs, end.Bytes = now.copies(plan)
		} else {
			s.carryOut(r.Context(), now, plan, &end, put)
			s.log.Info("images purged", "images", end.Images, "blobs", end.Blobs, "bytes", end.Bytes, "failed", end.Failed, "client", s.gate.Address(r).String())
		}
		put(end)
	})
}

// tellPlan tells what a plan does, and what it leaves.
func tellPlan(plan *holdings.Plan, end *purgeLine, put func(any)) {
	for _, one := range plan.Images {
		l := purgeLine{Image: one.Name(shownRegistry), Digest: one.Digest.String(), Bytes: one.Frees}
		if one.Stays {
			l.Error = "it is pinned: unpin it first"
			end.Failed++
		} else {
			end.Images++
		}
		put(l)
	}
	for _, p := range plan.Unused {
		put(purgeLine{Pattern: p.String(), Error: "nothing that is cached matches it"})
		end.Failed++
	}
	for _, t := range plan.Tags {
		if t.Ref.Tag != "" {
			end.Tags++
		}
	}
}

// copies counts what a plan removes, at all members.
func (s *overview) copies(plan *holdings.Plan) (blobs int, bytes int64) {
	for _, one := range s.held {
		for _, d := range gone(one, plan) {
			blobs++
			bytes += plan.Blobs[d]
		}
	}
	return blobs, bytes
}

// gone lists what of a plan a member holds.
func gone(one cluster.Held, plan *holdings.Plan) (out []digest.Digest) {
	if one.Err != nil {
		return nil
	}
	for _, b := range one.Inventory.Blobs {
		if _, goes := plan.Blobs[b.Digest]; goes {
			out = append(out, b.Digest)
		}
	}
	return out
}

// carryOut makes all members do what a plan says.
func (s *steward) carryOut(ctx context.Context, now *overview, plan *holdings.Plan, end *purgeLine, put func(any)) {
	done := make([]purgeLine, len(now.held))
	var wg sync.WaitGroup
	for i, one := range now.held {
		if one.Err != nil {
			end.Failed++
			continue
		}
		wg.Go(func() { done[i] = s.purgeAt(ctx, one, plan, put) })
	}
	wg.Wait()
	for _, l := range done {
		end.Blobs += l.Blobs
		end.Bytes += l.Bytes
		if l.Error != "" {
			end.Failed++
		}
	}
}

// purgeAt makes one member do what a plan says.
func (s *steward) purgeAt(ctx context.Context, one cluster.Held, plan *holdings.Plan, put func(any)) purgeLine {
	blobs := gone(one, plan)
	l := purgeLine{Node: one.Name, Of: len(blobs)}
	for _, p := range purgesOfTags(plan.Tags) {
		if _, err := s.order(ctx, one.ID, keeper.Order{Purge: &p}); err != nil {
			l.Error = err.Error()
			put(l)
			return l
		}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	n := 0
	for did := range s.removals(ctx, one, blobs) {
		if l.Blobs, l.Bytes = l.Blobs+did.Blobs, l.Bytes+did.Bytes; did.Error != "" && l.Error == "" {
			l.Error = did.Error
			stop() // the rest would fail in the same way
		}
		if n++; n%purgeTold == 0 {
			put(l)
		}
	}
	put(l)
	return l
}

// removals makes a member remove blobs, by several orders at a time, and tells what came
// of each. After ctx no more begin.
func (s *steward) removals(ctx context.Context, one cluster.Held, blobs []digest.Digest) <-chan purgeLine {
	orders, told := make(chan keeper.Purge), make(chan purgeLine)
	var wg sync.WaitGroup
	for range purgeWidth {
		wg.Go(func() {
			for p := range orders {
				a, err := s.order(ctx, one.ID, keeper.Order{Purge: &p})
				did := purgeLine{Blobs: a.Blobs, Bytes: a.Bytes}
				if err != nil {
					did.Error = err.Error()
				}
				told <- did
			}
		})
	}
	go func() {
		defer close(told)
		defer wg.Wait()
		defer close(orders)
		for part := range slices.Chunk(blobs, purgeBlobs) {
			if ctx.Err() != nil {
				return
			}
			orders <- keeper.Purge{Blobs: part}
		}
	}()
	return told
}

const (
	// purgeBlobs is how many blobs one order removes: as many as fit, with long digests.
	purgeBlobs = 25
	// purgeWidth is how many orders a member gets at a time.
	purgeWidth = 4
	// purgeTold is after how many orders it is told how far a member is.
	purgeTold = 100
)

// purgesOfTags are the orders that forget tags. They go first: what is asked for meanwhile
// is got anew. A tag has an Accept list for each kind of client, so its keys go one by one.
func purgesOfTags(tags []holdings.Forgotten) (out []keeper.Purge) {
	for _, t := range tags {
		one := keeper.Tag{Registry: t.Ref.Registry, Repository: t.Ref.Repository, Tag: t.Ref.Tag, Digest: t.Ref.Digest}
		if len(t.Keys) == 0 {
			out = append(out, keeper.Purge{Tags: []keeper.Tag{one}})
		}
		for _, key := range t.Keys {
			one.Keys = []string{key}
			out = append(out, keeper.Purge{Tags: []keeper.Tag{one}})
		}
	}
	return out
}
