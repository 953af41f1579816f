package egress

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/mesh"
)

// What is remembered of ways.
const (
	// maxOwn bounds the registries of which this node's own way is known, maxTheirs what
	// members told: clients make up names. The one used least recently is forgotten.
	maxOwn    = 256
	maxTheirs = 4096
)

// When a way is slow: a member's is taken instead if it is that many times as good.
const (
	better      = 4
	slowRate    = 4 << 20         // bytes a second: a faster way is never left for its speed
	slowLatency = time.Second     // until an answer begins: as above
	leastBytes  = 1 << 20         // what is measured over fewer bytes says little
	leastTime   = 2 * time.Second // unless they took that long
)

// Ways are what this node knows of the ways out to each registry: its own, as measured, and
// other members', as they tell. It forgets singly. It does no I/O. The zero value is not
// usable: see NewWays.
type Ways struct {
	mu     sync.Mutex // guards the fields below; never held during I/O
	own    *simplelru.LRU[string, *measured]
	theirs *simplelru.LRU[theirKey, heard]
}

// A measured is this node's own way to a registry. Manifests and blobs count apart: what the
// registry answers itself may come through, and what its storage sends may not.
type measured struct {
	down     [2]bool // of manifests, and of blobs
	up       bool    // an answer has come
	probed   time.Time
	latency  time.Duration
	rate     float64
	answered time.Time // when latency was measured
	sent     time.Time // when rate was
}

type theirKey struct{ member, goal string }

// A heard is what is known of a member's way.
type heard struct {
	mesh.Way
	at  time.Time
	why error // what was last found wrong with it, nil for nothing
}

// NewWays returns an empty memory.
func NewWays() *Ways {
	own, err := simplelru.NewLRU[string, *measured](maxOwn, nil)
	theirs, wrong := simplelru.NewLRU[theirKey, heard](maxTheirs, nil)
	if err != nil || wrong != nil {
		panic("a size below 1") // it refuses nothing else
	}
	return &Ways{own: own, theirs: theirs}
}

// ordinal is 1 for true and 0 for false: a place in measured.down, or in an order.
func ordinal(blob bool) int {
	if blob {
		return 1
	}
	return 0
}

// Tell returns how this node's own way to the registry is, as other members are told.
func (w *Ways) Tell(registry string) mesh.Way {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, known := w.own.Get(registry)
	switch {
	case !known:
		return mesh.Way{}
	case m.down[0] || m.down[1]:
		return mesh.Way{State: mesh.WayDown}
	case m.up:
		return m.way()
	default:
		return mesh.Way{}
	}
}

// way is what the measurements say by now.
func (m *measured) way() mesh.Way {
	out := mesh.Way{State: mesh.WayUp}
	if time.Since(m.answered) < measuredFor {
		out.Latency = m.latency
	}
	if time.Since(m.sent) < measuredFor {
		out.Rate = int64(m.rate)
	}
	return out
}

// Hear hears how a member's way to a registry is.
func (w *Ways) Hear(member, registry string, way mesh.Way) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.theirs.Add(theirKey{member, registry}, heard{Way: way, at: time.Now()})
}

// found notes that a member's way led to the registry, or why it did not. What the member
// told of its speed counts on.
func (w *Ways) found(member, registry string, why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := theirKey{member, registry}
	one, _ := w.theirs.Get(key)
	if one.State = mesh.WayUp; why != nil {
		one.State = mesh.WayDown
	}
	one.at, one.why = time.Now(), why
	w.theirs.Add(key, one)
}

// why returns what was last found wrong with a member's way, nil if nothing was.
func (w *Ways) why(member, registry string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	one, _ := w.theirs.Peek(theirKey{member, registry})
	return one.why
}

// doubt notes that what came through a member broke off: nobody knows whether its way is up.
func (w *Ways) doubt(member, registry string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.theirs.Remove(theirKey{member, registry})
}

// of returns what is known of a member's way by now. The caller holds mu.
func (w *Ways) of(member, registry string) mesh.Way {
	one, ok := w.theirs.Get(theirKey{member, registry})
	age := time.Since(one.at)
	if !ok || age >= toldFor {
		return mesh.Way{}
	}
	return one.Way
}

// worthAsking lists those of the members whose ways may be up, as far as is known: all but
// those found down just now. Those that were down before, or told so, come last.
func (w *Ways) worthAsking(members []mesh.Relayer, registry string) (out []mesh.Relayer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	down := map[string]bool{}
	for _, m := range members {
		one, _ := w.theirs.Get(theirKey{m.ID(), registry})
		if one.why == nil || time.Since(one.at) >= downFor {
			out = append(out, m)
			down[m.ID()] = w.of(m.ID(), registry).State == mesh.WayDown
		}
	}
	slices.SortStableFunc(out, func(a, b mesh.Relayer) int { return ordinal(down[a.ID()]) - ordinal(down[b.ID()]) })
	return out
}

// up lists those of the members whose ways are known to be up: first the good ones, then
// those that are slow beside them.
func (w *Ways) up(members []mesh.Relayer, registry string) []mesh.Relayer {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []mesh.Relayer
	slow := map[string]bool{}
	best := w.best(members, registry)
	for _, m := range members {
		if way := w.of(m.ID(), registry); way.State == mesh.WayUp {
			out = append(out, m)
			slow[m.ID()] = slower(way, best)
		}
	}
	slices.SortStableFunc(out, func(a, b mesh.Relayer) int { return ordinal(slow[a.ID()]) - ordinal(slow[b.ID()]) })
	return out
}

// best returns the best latency and rate of the members' ways. The caller holds mu.
func (w *Ways) best(members []mesh.Relayer, registry string) (best mesh.Way) {
	for _, m := range members {
		way := w.of(m.ID(), registry)
		best.Rate = max(best.Rate, way.Rate)
		if way.Latency > 0 && (best.Latency == 0 || way.Latency < best.Latency) {
			best.Latency = way.Latency
		}
	}
	return best
}

// slower reports whether a way is so much slower than another that the other is to be taken.
func slower(way, other mesh.Way) bool {
	return way.Rate > 0 && way.Rate < slowRate && other.Rate > better*way.Rate ||
		way.Latency > slowLatency && other.Latency > 0 && other.Latency < way.Latency/better
}

// avoids reports whether this node's own way is down, and lists the members whose ways are so
// much better that they are to be taken instead.
func (w *Ways) avoids(members []mesh.Relayer, registry string, blob bool) (down bool, better []mesh.Relayer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, known := w.own.Get(registry)
	if !known {
		return false, nil
	}
	own := m.way()
	for _, one := range members {
		if way := w.of(one.ID(), registry); way.State == mesh.WayUp && slower(own, way) {
			better = append(better, one)
		}
	}
	return m.down[ordinal(blob)], better
}

// at returns what is measured of this node's own way, to be changed. The caller holds mu.
func (w *Ways) at(registry string) *measured {
	m, known := w.own.Get(registry)
	if !known {
		m = &measured{}
		w.own.Add(registry, m)
	}
	return m
}

// ownUp notes that an answer of the registry began after took. changed reports whether the
// way was down.
func (w *Ways) ownUp(registry string, blob bool, took time.Duration) (changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.at(registry)
	if time.Since(m.answered) < measuredFor {
		took = (3*m.latency + took) / 4
	}
	m.latency, m.answered, m.up = took, time.Now(), true
	changed, m.down[ordinal(blob)] = m.down[ordinal(blob)], false
	return changed
}

// ownDown notes that this node's own way does not lead to the registry. changed reports
// whether that is new.
func (w *Ways) ownDown(registry string, blob bool) (changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.at(registry)
	changed = !m.down[ordinal(blob)]
	m.down[ordinal(blob)] = true
	if changed {
		m.probed = time.Now()
	}
	return changed
}

// ownSent notes that bytes came by this node's own way in so much time.
func (w *Ways) ownSent(registry string, bytes int64, took time.Duration) {
	if took <= 0 || bytes < leastBytes && took < leastTime {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.at(registry)
	rate := max(1, float64(bytes)/took.Seconds())
	if time.Since(m.sent) < measuredFor {
		rate = (m.rate + rate) / 2
	}
	m.rate, m.sent = rate, time.Now()
}

// probeDue reports whether it is time to see whether this node's own way is up again, and
// notes that somebody does.
func (w *Ways) probeDue(registry string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.at(registry)
	if time.Since(m.probed) < probeEvery {
		return false
	}
	m.probed = time.Now()
	return true
}
