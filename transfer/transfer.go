// Package transfer gives clients and other members what they ask for: blobs,
// manifests, tags and lists, from the shard, from another node or from upstream.
//
// The story of a pull: oci.ParsePath turns a /v2 path into an oci.Ref. A [Fetcher]
// adds the registry's rules of the moment (grants.Site). A tag is checked
// with upstream each time, by HEAD, so that no pull quota is spent when nothing has
// changed (tag.go). A manifest is got by its digest and kept as a blob is, with its
// media type (manifest.go). A blob is opened from the shard, or else followed while a
// flight downloads it (blob.go, answer.go).
//
// The rooms below: grants say who may have what the shard holds, flight downloads
// each blob once, mesh asks the other nodes, peer and upstream speak to them and to
// registries. [Fetcher.Holder] is this node as the other members see it.
package transfer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/count"
	"oci-proxy/transfer/excerpt"
	"oci-proxy/transfer/feed"
	"oci-proxy/transfer/flight"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// Config is what a Fetcher works with. Upstream, Site and Log are needed.
type Config struct {
	Upstream oci.Upstream
	Archive  oci.Archive // where content is kept for the cluster, nil for nowhere
	// Site returns what a registry means at the moment. It does no I/O.
	Site  func(registry string) grants.Site
	Log   *slog.Logger
	Stall time.Duration // how long a download may stand still before it is tried again, 0: 20 s
	Mesh  mesh.Router   // the other members, nil for a node on its own
	Zone  string        // where this node is: see transfer/feed
	Look  time.Duration // as mesh.Config.Look
	Drip  time.Duration // as mesh.Config.Drip
	// Reaches is as mesh.Config.Reaches.
	Reaches func(registry string) bool
}

// A Fetcher gets content for clients. Its methods may be called from any goroutine.
type Fetcher struct {
	*rooms
	site      func(registry string) grants.Site
	blobs     *blobs
	manifests *manifests
	tags      *tags
	lists     *lists
	relay     *relay
	handBack  *handBack
}

// rooms are what all parts of a Fetcher work with.
type rooms struct {
	upstream oci.Upstream
	archive  oci.Archive
	mesh     *mesh.Mesh
	grants   *grants.Grants
	flights  *flight.Flights
	excerpts *excerpt.Excerpts
	trees    *feed.Trees
	sizes    *flight.Sizes
	counters *count.Book
	memory   *wait.Budget // for manifests on their way, and lists
	life     *wait.Life
	log      *slog.Logger
}

// What answers on their way share of this node's memory.
const (
	memoryBytes = 64 << 20
	// memoryCrowd is how many may wait for some of it.
	memoryCrowd = 4096
	// memoryPatience is how long they wait. It is less than answerWithin, so that a
	// client hears the reason.
	memoryPatience = 20 * time.Second
)

// New returns a Fetcher. Close it.
func New(cfg Config) *Fetcher {
	if cfg.Stall == 0 {
		cfg.Stall = stall
	}
	if cfg.Archive == nil {
		cfg.Archive = oci.NoArchive{}
	}
	r := &rooms{upstream: cfg.Upstream, archive: cfg.Archive, trees: feed.NewTrees(cfg.Zone), sizes: flight.NewSizes(), counters: &count.Book{}, life: wait.NewLife(), log: cfg.Log}
	r.memory = wait.NewBudget(memoryBytes, memoryCrowd, memoryPatience)
	r.mesh = mesh.New(mesh.Config{
		Router: cfg.Mesh, Log: cfg.Log, Look: cfg.Look, Drip: cfg.Drip, Reaches: cfg.Reaches,
		Passed: func(registry string) { r.counters.Of(registry).PeersPassed.Add(1) },
	})
	r.grants = grants.New(grants.Config{Upstream: cfg.Upstream, Mesh: r.mesh, Site: cfg.Site, Life: r.life, Within: answerWithin, Log: cfg.Log})
	back := newHandBack(r)
	r.flights = flight.New(flight.Config{
		Upstream: cfg.Upstream, Archive: cfg.Archive, Mesh: r.mesh, Grants: r.grants, Life: r.life, Counters: r.counters, Sizes: r.sizes, Log: cfg.Log, Zone: cfg.Zone, Stall: cfg.Stall,
		Got: func(q grants.Request) { back.offer(q, "") },
	})
	r.excerpts = excerpt.New(excerpt.Config{
		Upstream: cfg.Upstream, Mesh: r.mesh, Grants: r.grants, Life: r.life, Within: answerWithin, Counters: r.counters, Log: cfg.Log,
	})
	f := &Fetcher{rooms: r, site: cfg.Site, blobs: newBlobs(r), manifests: newManifests(r, back), handBack: back}
	f.lists = newLists(r)
	f.tags = newTags(r, f.manifests, f.lists.words)
	f.relay = newRelay(r, f.hear)
	f.lists.words.relay = f.relay
	return f
}

// hear gets what another node knows of a registry's answer, and keeps it.
func (f *Fetcher) hear(ctx context.Context, from mesh.Peer, q asked) error {
	word, err := from.LastWord(ctx, q.question())
	if err != nil {
		return err
	}
	switch {
	case q.Tag != "":
		f.tags.hear(f.tags.question(q.Request, q.accept, true, true), word)
	case word.No == nil:
		return f.lists.hear(ctx, from, q, word)
	default:
		f.lists.words.keep(q, word)
	}
	return nil
}

// Close waits until the downloads have ended or ctx ends, then ends the rest. Nothing
// new begins meanwhile: whoever asks for what is not in the shard gets an *oci.Error of
// kind Unavailable.
func (f *Fetcher) Close(ctx context.Context) {
	f.relay.close()
	f.handBack.close()
	f.life.Close(ctx)
	f.grants.Close()
}

// Counters returns the figures of each registry that has delivered something.
func (f *Fetcher) Counters() map[string]*count.Counters { return f.counters.All() }

// Sending returns w, to which content of a registry goes for a client. What goes there is
// counted while it flows.
func (f *Fetcher) Sending(w io.Writer, registry string, from oci.Origin) io.Writer {
	return count.Writer(w, f.counters.Of(registry).Sent(from))
}

// Expect gives a registry counters of its own. Of those that deliver something without
// that, the first 512 have some.
func (f *Fetcher) Expect(registry string) { f.counters.Of(registry) }

// PeersPassed returns how many members were passed over since start, by reason.
func (f *Fetcher) PeersPassed() map[string]int64 { return f.mesh.Passed() }

// SentOn returns how many members this node has sent on to another since start.
func (f *Fetcher) SentOn() int64 { return f.trees.SentOn() }

// FeedersLeft returns how many members that were to feed this node it has left since start,
// by reason.
func (f *Fetcher) FeedersLeft() map[string]int64 { return f.mesh.FeedersLeft() }

// Flights returns how many downloads are under way, and how many requests wait for them
// or read from them.
func (f *Fetcher) Flights() (flights, followers int) { return f.flights.Figures() }

// A Download is what can be told of a download under way.
type Download = flight.Download

// Downloads lists the downloads under way that can be joined, in no order.
func (f *Fetcher) Downloads() []Download { return f.flights.Downloads() }

// Came is where bytes of blobs are counted that come from a registry for another member.
func (f *Fetcher) Came(registry string) *atomic.Int64 {
	return &f.counters.Of(registry).FromUpstreamBytes
}

// Public reports whether the shard holds the digest, as content of ref's registry or
// another, in a way that anybody may know.
func (f *Fetcher) Public(ref oci.Ref) bool { return f.grants.Public(f.request(ref)) }

// request is what ref means at the moment.
func (f *Fetcher) request(ref oci.Ref) grants.Request {
	return grants.Request{Ref: ref, Site: f.site(ref.Registry).For(ref)}
}

// Blob opens the blob that ref names, for a client's GET: from the shard, or as it
// arrives. It returns once the first bytes can be sent, after 40 s at the latest.
// Errors are *oci.Error, or ctx's. It counts as a hit or a miss of the registry.
func (f *Fetcher) Blob(ctx context.Context, ref oci.Ref) (*Answer, error) {
	return f.answer(ctx, flight.NewTicket(f.request(ref)))
}

// AtHand reports whether the shard holds what ref names by its digest, as that resource, and may serve
// it without asking anybody, as far as memory knows; and its size in bytes. It does no I/O.
func (f *Fetcher) AtHand(ref oci.Ref, as oci.Resource) (size int64, ok bool) {
	q := f.request(ref)
	if _, held, sure := q.Shard.Known(ref.Digest); !held || !sure {
		return 0, false
	}
	pass := f.grants.Recent(q, as)
	if pass == nil {
		return 0, false
	}
	return pass.Size(), true
}

// answer opens the blob of a client's ticket, and counts it.
func (f *Fetcher) answer(ctx context.Context, t *flight.Ticket) (*Answer, error) {
	a, err := f.blobs.open(ctx, t)
	if err != nil {
		return nil, err
	}
	f.counters.Of(t.Registry).Request(a.Origin)
	return a, nil
}

// StatBlob returns the size of the blob that ref names for a client's HEAD, -1 if
// upstream does not tell, without getting the blob: from the shard, a flight or
// upstream's HEAD. If upstream offers no HEAD, or no size by it, a flight is begun to
// learn it. Errors are as for Blob.
func (f *Fetcher) StatBlob(ctx context.Context, ref oci.Ref) (oci.Sized, error) {
	return f.blobs.stat(ctx, f.request(ref))
}

// Manifest gets the manifest that ref's tag or digest names. accept is the client's
// Accept list, taken apart; head asks for all but the bytes. Errors are *oci.Error, or
// ctx's, and come within 40 s. A GET by digest counts as a hit or a miss. Close the Found.
func (f *Fetcher) Manifest(ctx context.Context, ref oci.Ref, accept []string, head bool) (*oci.Found, error) {
	q := f.request(ref)
	found, err := opened(head, func() (*oci.Found, error) {
		if ref.Digest == "" {
			return f.tags.find(ctx, q, accept, head, false)
		}
		if found, ok := f.manifests.kept(ctx, q, f.grants.Recent(q, oci.ManifestResource)); ok {
			return found, nil // nobody is waited for
		}
		limited, cancel := inTime(ctx, ref)
		defer cancel()
		return f.manifests.byDigest(limited, q, head, false)
	})
	if err != nil {
		return nil, f.explain(ctx, q, oci.ManifestResource, "", err)
	}
	if !head && ref.Digest != "" {
		f.counters.Of(ref.Registry).Request(found.Origin)
	}
	return found, nil
}

// opened returns what find finds, opened unless only its head is asked for. A manifest
// that has left the shard just then is looked for once more.
func opened(head bool, find func() (*oci.Found, error)) (found *oci.Found, err error) {
	for range attempts {
		found, err = find()
		if err != nil || head || found.Open == nil {
			return found, err
		}
		if found.Body, err = found.Open(); err == nil {
			return found, nil
		}
	}
	return nil, err
}

// explain makes an *oci.Error of what a client's request ended with, unless it is the
// client that has gone. host is the one that delivered, "" if none did. If err is the
// registry's refusal, what it granted before is revoked.
func (r *rooms) explain(ctx context.Context, q grants.Request, as oci.Resource, host string, err error) error {
	r.grants.Revoke(q, as, err)
	return explain(ctx, q.Ref, host, err)
}

// explain is explain for what says nothing about the right to pull.
func explain(ctx context.Context, ref oci.Ref, host string, err error) error {
	if _, ok := oci.AsError(err); ok || err == nil || ctx.Err() != nil {
		return err
	}
	e := &oci.Error{Kind: oci.Unavailable, Registry: ref.Registry, Host: host, Reason: flight.BrokeOff, Err: err}
	if p, ok := errors.AsType[*mesh.PeerError](err); ok {
		e.Host, e.Reason = p.Peer, "another node of the cluster failed"
	}
	switch {
	case errors.Is(err, wait.ErrClosed):
		e.Reason = "this node is shutting down"
	case errors.Is(err, wait.ErrFull):
		return oci.BusyError(ref.Registry, err)
	case errors.Is(err, cache.ErrDigest):
		e.Kind, e.Reason = oci.Corrupt, flight.WrongBytes
	}
	return e
}
