// Package flight downloads blobs: one download for each digest, however many ask.
//
// A [Ticket] is a request for a blob. [Flights.Board] puts it on the [Flight] that
// is under way for the digest, or begins one. A flight belongs to the node, not to
// the request that began it. It goes along its sources (sources.go): nodes on the
// blob's route, nodes that hold it, the registry. A source that breaks off, hangs
// or crawls is left at the byte reached, and the next goes on from there
// (download.go). The bytes go into a cache.Ingest, which hashes them and which all
// requests follow.
//
// Who gets a blob from the registry leads for the whole cluster; lead.go says how
// nodes that disagree about that still ask the registry once.
package flight

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/cache"
	"oci-proxy/transfer/count"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// Config is what Flights work with. All fields but Got are needed.
type Config struct {
	Upstream oci.Upstream
	Archive  oci.Archive
	Mesh     *mesh.Mesh
	Grants   *grants.Grants
	Life     *wait.Life // that flights belong to
	Counters *count.Book
	Sizes    *Sizes
	Log      *slog.Logger
	Got      func(grants.Request) // hears of each blob that the shard has from a registry since this node led
	Zone     string               // this node's; may be ""
	Stall    time.Duration        // how long a download may stand still before it is tried again
}

// A flightKey says which requests share a flight: those for one digest of one
// registry, whatever repository they name. Those for another registry do not: what
// a client waits for must not depend on a registry that it did not name.
//
// A flight that leads asks the registry for the whole cluster; another follows such
// a one at another node. Members that ask this node board the leading one only: one
// that followed them would close a circle.
type flightKey struct {
	oci.Content
	leads bool
}

// Flights are the downloads under way. What an entry says is guarded by mu too.
type Flights struct {
	cfg  Config
	pace *pace // see takecopy.go

	mu       sync.Mutex // guards the fields below; never held during I/O
	flights  map[flightKey]*entry
	intents  *simplelru.LRU[oci.Content, intent] // see lead.go
	landings uint64
	landed   *simplelru.LRU[oci.Content, uint64] // which landing brought it
}

// An entry is a flight that can be boarded, and what Flights know about it.
type entry struct {
	*Flight
	aboard  int    // requests that boarded and did not get off
	settled bool   // it asks the registry, whoever else may want to: see lead.go
	defers  string // the member that it defers to while it is not settled
}

// A Flight is one download. It outlives the request that began it.
type Flight struct {
	key     flightKey
	request grants.Request // that began it
	ingest  *cache.Ingest
	began   time.Time
	source  atomic.Pointer[oci.Provenance] // who delivers: Origin, Host, Via and At
	coding  atomic.Pointer[string]         // what was odd about the encoding of a source, nil if nothing was
	chair   chair                          // where it sits among those that want the blob
	entry   *entry                         // for Flights
}

// Ref returns what the request named that began the flight.
func (fl *Flight) Ref() oci.Ref { return fl.request.Ref }

// Ingest returns what the flight fills, to be followed.
func (fl *Flight) Ingest() *cache.Ingest { return fl.ingest }

// Provenance returns where the bytes come from, as far as known by now.
func (fl *Flight) Provenance() oci.Provenance {
	if p := fl.source.Load(); p != nil {
		return *p
	}
	return oci.Provenance{}
}

// wrongBytes is why the bytes of the flight are refused. What is odd about their encoding
// most likely explains it.
func (fl *Flight) wrongBytes() string {
	if coding := fl.coding.Load(); coding != nil {
		return WrongBytes + ": " + *coding
	}
	return WrongBytes
}

// Host returns the host that delivers, "" if none does yet.
func (fl *Flight) Host() string { return fl.Provenance().Host }

const (
	// maxIntents bounds what is remembered about what other members are about to get.
	maxIntents = 4096
	// maxLanded bounds the blobs that are remembered for having just landed. One that
	// is forgotten too early costs a second download.
	maxLanded = 4096
)

// New returns Flights. They end with cfg.Life.
func New(cfg Config) *Flights {
	f := &Flights{cfg: cfg, pace: newPace(), flights: map[flightKey]*entry{}}
	f.intents, _ = simplelru.NewLRU[oci.Content, intent](maxIntents, nil) // the sizes are right
	f.landed, _ = simplelru.NewLRU[oci.Content, uint64](maxLanded, nil)
	return f
}

// ErrLanded says that the blob came into the shard after the ticket's holder looked
// there.
var ErrLanded = errors.New("the blob has landed")

// Look notes that the shard is looked at for the ticket's blob now. Call it before
// looking, and look before boarding.
func (f *Flights) Look(t *Ticket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.looked = f.landings
}

// Landed notes that a blob has come into the shard in another way than by a flight.
func (f *Flights) Landed(c oci.Content) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.land(c)
}

// land is Landed for a caller that holds mu.
func (f *Flights) land(c oci.Content) {
	f.landings++
	f.landed.Add(c, f.landings)
}

// Board joins the flight for the ticket's blob, or begins one; joined tells which.
// A flight that the ticket is not for is replaced: it goes on for those aboard.
// Errors are ErrLanded, wait.ErrClosed or an *oci.Error. Call GetOff in the end.
func (f *Flights) Board(t *Ticket) (fl *Flight, joined bool, err error) {
	c := t.Content()
	leads := t.ForMember || f.cfg.Mesh.Leads(t.Registry, t.Digest.String())
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.boardable(t); e != nil {
		e.aboard++
		return e.Flight, true, nil
	}
	// A flight leaves the map after its blob has come into the shard. A ticket is told
	// once: the shard may not serve the blob for it, however often it lands.
	if landing, ok := f.landed.Get(c); ok && landing > t.looked && !t.told {
		t.told = true
		return nil, false, ErrLanded
	}
	if t.Terms.Held {
		return nil, false, oci.NotHeldError(t.Ref)
	}
	fl, err = f.begin(t, flightKey{c, leads})
	return fl, false, err
}

// boardable returns the flight under way that the ticket is for, nil if there is none.
// The caller holds mu.
func (f *Flights) boardable(t *Ticket) *entry {
	for _, leads := range []bool{true, false} {
		e, ok := f.flights[flightKey{t.Content(), leads}]
		if !ok || !t.mayBoard(e.Flight) {
			continue
		}
		if (leads || !t.ForMember) && (!t.Terms.Held || f.followable(e, t.Asker)) || t.sits(e.Flight) || t.waitsForNothing(e.Flight) {
			return e
		}
	}
	return nil
}

// begin begins a flight. The caller holds mu.
func (f *Flights) begin(t *Ticket, key flightKey) (*Flight, error) {
	in, err := t.Shard.Ingest(f.cfg.Life.Context(), t.Digest, t.Registry, "")
	if err != nil {
		return nil, &oci.Error{Kind: oci.Invalid, Registry: t.Registry, Reason: "digest not supported", Err: err}
	}
	if !key.leads {
		in.Replica()
	}
	if t.Stranger {
		in.Doubt()
	}
	fl := &Flight{key: key, request: t.Request, ingest: in, began: time.Now()}
	fl.entry = &entry{Flight: fl, aboard: 1}
	filler := &filler{Flight: fl, flights: f, caller: t.Caller, trace: t.Trace, damaged: t.Damaged}
	if other := f.flights[flightKey{key.Content, false}]; key.leads && other != nil && t.mayBoard(other.Flight) {
		filler.early = other.Flight
	}
	if !f.cfg.Life.Go(filler.run) {
		return nil, wait.ErrClosed
	}
	f.flights[key] = fl.entry
	return fl, nil
}

// GetOff ends what Board began, once for each of the flights.
func (f *Flights) GetOff(flights ...*Flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fl := range flights {
		fl.entry.aboard--
	}
}

// deserted reports whether nobody is aboard a flight that was abandoned. Then
// nobody boards it any more.
func (f *Flights) deserted(fl *Flight) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.entry.aboard > 0 {
		return false
	}
	f.strike(fl)
	return true
}

// leave takes a flight off the list of those that can be boarded. landed says that
// its blob is in the shard.
func (f *Flights) leave(fl *Flight, landed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.strike(fl)
	if landed {
		f.land(fl.key.Content)
	}
}

// strike takes a flight off the list. The caller holds mu.
func (f *Flights) strike(fl *Flight) {
	for _, leads := range []bool{true, false} {
		if key := (flightKey{fl.key.Content, leads}); f.flights[key] == fl.entry {
			delete(f.flights, key)
		}
	}
}

// Find returns the flight under way that is for just this request, and has learnt
// the blob's size, nil if there is none.
func (f *Flights) Find(ref oci.Ref) *Flight {
	for _, leads := range []bool{true, false} {
		fl := f.at(flightKey{ref.Content(), leads})
		if fl != nil && fl.request.Ref == ref && fl.ingest.Size() >= 0 {
			return fl
		}
	}
	return nil
}

// Sendable returns how many bytes of a blob can be sent to members from the flight under
// way, 0 if there is none: from the leading one, else from one that may feed others.
func (f *Flights) Sendable(c oci.Content) int64 {
	if fl := f.at(flightKey{c, true}); fl != nil {
		return fl.ingest.Sendable()
	}
	if fl := f.at(flightKey{c, false}); fl != nil && fl.chair.taken() {
		return fl.ingest.Sendable()
	}
	return 0
}

// Begun returns how many of the first bytes of q's blob this node can send at once from flights
// under way, whoever may follow those. They are unverified, as all that is on its way.
func (f *Flights) Begun(q grants.Request) (n int64) {
	t := NewTicket(q)
	for _, leads := range []bool{true, false} {
		if fl := f.at(flightKey{q.Content(), leads}); fl != nil && t.mayBoard(fl) {
			n = max(n, fl.begun())
		}
	}
	return n
}

// Figures returns how many flights can be boarded, and how many requests are aboard.
func (f *Flights) Figures() (flights, aboard int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.flights {
		aboard += e.aboard
	}
	return len(f.flights), aboard
}

// at returns the flight of that key, nil if there is none.
func (f *Flights) at(key flightKey) *Flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e, ok := f.flights[key]; ok {
		return e.Flight
	}
	return nil
}

// Aboard returns how many requests wait for a blob or read it from a flight.
func (f *Flights) Aboard(c oci.Content) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, e := range f.flights {
		if key.Content == c {
			n += e.aboard
		}
	}
	return n
}
