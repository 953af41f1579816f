package egress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// maxWays bounds how many members' ways one request takes, and maxNamed how many are named
// when all fail.
const (
	maxWays  = 4
	maxNamed = 6
)

// A want is what a registry is asked for.
type want struct {
	ref  oci.Ref
	blob bool // and not a manifest, or a list
	anew bool // all of it, from the beginning
	sure bool // content by its digest, that any mirror can give: whoever gets it checks it
}

// goal names what a question is to reach, as members' ways are remembered: the registry, or
// that or any of its mirrors. A way may lead to one and not to the other.
func (w want) goal(ctx context.Context) string {
	if w.sure && oci.Mirrors(ctx) {
		return w.ref.Registry + " or a mirror"
	}
	return w.ref.Registry
}

// A tour is one request on its way by one way after the other.
type tour struct {
	want
	e     *Egress
	to    string        // as want.goal says
	began time.Time     // or when this node's own way failed: that took as long as it took
	lost  time.Duration // since then, on members that failed themselves: that says nothing of the registry
	own   error         // why this node's own way failed, nil if it did not
	taken []mesh.Relayer
	// members are those that may ask the registry for this node.
	members []mesh.Relayer
}

// along asks by one way after the other until a registry has answered. What a member says
// for the registry counts as the registry's answer to this node.
func along[T any](ctx context.Context, e *Egress, what want, ask func(context.Context, way) (T, error)) (v T, err error) {
	t := &tour{e: e, want: what, to: what.goal(ctx), began: time.Now()}
	for w := range t.ways(ctx) {
		began := time.Now()
		if v, err = ask(ctx, w); t.settles(ctx, w, err) {
			if errors.Is(context.Cause(ctx), errLate) && t.own != nil {
				err = t.failure() // which tells more than that another way took too long
			}
			return v, err
		}
		if failed(err) {
			t.lost += time.Since(began)
		}
	}
	return v, t.failure()
}

// ways lists the ways in order. This node's own comes first unless it is known to be down;
// members' that are better by far come before it. Then come members' that are known to be up,
// those that turn out to be, and at last what was known to be down. Mirrors are reached or not
// whatever is known of the registry, so where they may answer the own way is never passed over.
func (t *tour) ways(ctx context.Context) iter.Seq[way] {
	return func(yield func(way) bool) {
		cfg := &t.e.cfg
		t.members = cfg.Relays(t.ref.Registry, cmp.Or(t.ref.Digest.String(), t.ref.Repository))
		down, better := cfg.Ways.avoids(t.members, t.ref.Registry, t.blob)
		last := down && len(t.members) > 0 && !oci.Mirrors(ctx)
		switch {
		case !cfg.Own:
		case last:
			t.e.own.probe(t.ref, t.blob)
		case !t.each(better, yield) || !yield(way{}):
			return
		}
		others, doubtful := t.doubted()
		if t.through(ctx, others, yield) && t.through(ctx, doubtful, yield) && cfg.Own && last {
			yield(way{})
		}
	}
}

// each lists the ways of members that were not taken before.
func (t *tour) each(members []mesh.Relayer, yield func(way) bool) bool {
	for _, m := range members[:min(len(members), maxWays)] {
		if !t.took(m) && !yield(way{m}) {
			return false
		}
	}
	return true
}

// doubted sets apart the member by way of which the same blob came a short while ago.
func (t *tour) doubted() (others, last []mesh.Relayer) {
	id := ""
	if t.anew {
		id = t.e.came.last(t.ref.Content())
	}
	for _, m := range t.members {
		if m.ID() == id {
			last = append(last, m)
		} else {
			others = append(others, m)
		}
	}
	return others, last
}

// through lists the ways of members: those known to be good, then those that turn out to be.
func (t *tour) through(ctx context.Context, members []mesh.Relayer, yield func(way) bool) bool {
	if !t.each(t.e.cfg.Ways.up(members, t.to), yield) {
		return false
	}
	for len(t.taken) < 2*maxWays && t.inTime() {
		m := t.e.search.find(ctx, t.to, t.ref, t.blob, slices.DeleteFunc(slices.Clone(members), t.took))
		if m == nil || t.took(m) {
			break
		}
		if !yield(way{m}) {
			return false
		}
	}
	return true
}

// took reports whether a member's way was taken.
func (t *tour) took(m mesh.Relayer) bool {
	return slices.ContainsFunc(t.taken, func(one mesh.Relayer) bool { return one.ID() == m.ID() })
}

// inTime reports whether there is time for another way.
func (t *tour) inTime() bool { return time.Since(t.began)-t.lost < otherWays }

// settles reports whether no other way is to be taken after what this one led to, and notes
// what that tells of the way.
func (t *tour) settles(ctx context.Context, w way, err error) bool {
	bad := fault(err)
	if w.member != nil {
		bad = theirs(err)
	}
	switch {
	case ctx.Err() != nil:
		return true
	case w.member == nil && bad:
		t.own, t.began, t.lost = err, time.Now(), 0
		return false
	case w.member == nil:
		return true
	}
	if !bad {
		t.e.cfg.Ways.found(w.member.ID(), t.to, nil)
		if t.own != nil { // the member got further
			t.e.own.down(t.ref.Registry, t.blob, t.own)
		}
		return true
	}
	if !busy(err) {
		t.e.cfg.Ways.found(w.member.ID(), t.to, err)
	}
	t.taken = append(t.taken, w.member)
	t.e.cfg.Log.Debug("no way out through another node", "peer", w.name(), "registry", t.ref.Registry, "error", err)
	return !failed(err) && !t.inTime()
}

// failure is why no way led to the registry: this node's own failure, with what was found
// wrong with the other ways.
func (t *tour) failure() error {
	own, ok := oci.AsError(t.own)
	if !ok {
		own = &oci.Error{Kind: oci.Unavailable, Registry: t.ref.Registry, Host: t.ref.Registry, Unreached: true, Reason: noOwn}
	}
	var others []string
	e := *own
	for _, m := range t.members {
		why := t.e.cfg.Ways.why(m.ID(), t.to)
		if why == nil || len(others) == maxNamed {
			continue
		}
		others = append(others, m.Name()+" ("+reason(why)+")")
		if e.Err == nil {
			e.Err = why
		} else {
			e.Err = fmt.Errorf("%w; by way of %s: %w", e.Err, m.Name(), why)
		}
	}
	told := "; no other node that may ask it answers"
	switch {
	case len(others) > 0:
		told = "; nor is it reached by way of " + strings.Join(others, ", ")
	case ok:
		return own
	}
	e.Reason += told
	if e.Inside != "" {
		e.Inside += told
	}
	return &e
}

// noOwn is why a node does not take its own way out.
const noOwn = "this node does not ask registries itself (egress: false)"

// reason is why another way failed, for people.
func reason(err error) string {
	if e, ok := oci.AsError(err); ok {
		return e.Reason
	}
	return "the node does not answer"
}
