package transfer

import (
	"cmp"
	"context"
	"errors"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/trace"
	"oci-proxy/transfer/wait"

	"github.com/opencontainers/go-digest"
)

// tags find out what tags mean, and remember it.
type tags struct {
	*rooms
	manifests *manifests
	words     *words
	// Calls for clients may wait for another node; calls for members must not.
	forClients, forMembers *wait.Calls[string, meaning]
}

// A meaning is what a tag means, as somebody said.
type meaning struct {
	oci.Descriptor
	found *oci.Found     // set if the manifest had to be got to learn its digest
	how   oci.Provenance // At, and of another node's answer Stale, Via and Host
}

func newTags(r *rooms, m *manifests, w *words) *tags {
	return &tags{
		rooms: r, manifests: m, words: w,
		forClients: wait.NewCalls[string, meaning](r.life, answerWithin),
		forMembers: wait.NewCalls[string, meaning](r.life, answerWithin),
	}
}

// A question is a request for what a tag means.
type question struct {
	grants.Request
	client []string // what the client takes
	accept []string // sent upstream
	key    string   // what the answer is remembered by: it depends on accept
	head   bool     // the bytes are not asked for
	member bool     // another node wants to know
}

// question is what a client, or a member, asks for.
func (t *tags) question(of grants.Request, client []string, head, member bool) question {
	q := question{Request: of, client: client, accept: oci.Acceptable(client), head: head, member: member}
	if member && len(q.accept) == len(oci.ManifestTypes) {
		q.client = nil // its client takes any type, for which there is no word between nodes
	}
	q.key = q.keyFor(q.accept)
	return q
}

// known is find for a tag that there is.
func (t *tags) known(ctx context.Context, q question) (*oci.Found, error) {
	old, known := q.Shard.Tag(q.key)
	known = known && t.grants.Stands(q.Request, oci.ManifestResource, old.Checked)
	if age := time.Since(old.Checked); known && age >= 0 && (age < q.TagTTL || q.Spare && age < q.StaleIfError) {
		if found, ok := t.lastKnown(ctx, q, old); ok {
			return found, nil
		}
	}
	old = q.past(old)
	limited, cancel := inTime(ctx, q.Ref)
	defer cancel()
	found, err := t.current(limited, q)
	if err == nil {
		found.Checked = known
		return found, nil
	}
	err = oci.Lateness(q.Ref, err)
	t.grants.Revoke(q.Request, oci.ManifestResource, err)
	if e, ok := oci.AsError(err); ok && e.Kind == oci.NotFound && e.Authoritative() {
		q.Shard.ForgetTag(q.key)
		return nil, err
	}
	if found, ok := t.standIn(ctx, q, old, known, err); ok {
		return found, nil
	}
	return nil, err
}

// current asks what the tag means, and gets that unless it is here.
func (t *tags) current(ctx context.Context, q question) (_ *oci.Found, err error) {
	ctx, span := trace.Start(ctx, "tag")
	defer func() { span.End(err) }()
	c, joined, err := t.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	if c.found != nil {
		found, err := shared(c.found, joined, nil)
		return t.remember(q, found, c.how), err
	}
	how := c.how
	how.Origin, how.Collapsed, how.Host = oci.Miss, how.Collapsed || joined, cmp.Or(how.Host, q.Registry)
	if found, ok := t.keptAt(ctx, q, c.Digest, c.how.At); ok {
		found.Provenance = how
		return t.remember(q, found, c.how), nil
	}
	if q.head && c.Size >= 0 && oci.ToldType(c.MediaType) != oci.Untold {
		found := &oci.Found{Manifest: oci.Manifest{Digest: c.Digest, MediaType: c.MediaType}, Size: c.Size, Provenance: how}
		if q.member {
			t.remember(q, found, c.how) // the node that asks gets the manifest, and verifies it
			return found, nil
		}
		// Nothing is verified, so the tag's last manifest stays what it was for now.
		t.rememberLater(q, found, c.how)
		return found, nil
	}
	found, err := t.manifests.byDigest(ctx, t.pinned(q, c.Digest).Request, false, q.member)
	if e, ok := oci.AsError(err); ok && (e.Kind == oci.NotFound || e.Kind == oci.Invalid || e.Kind == oci.Corrupt) {
		return t.whole(ctx, q, *e)
	}
	if err != nil {
		return nil, err
	}
	if found.Open == nil && !oci.MayBeManifest(found.Bytes) {
		return nil, &oci.Error{Kind: oci.Corrupt, Registry: q.Registry, By: found.By, Reason: "what the tag means is not a manifest"}
	}
	found.Origin, found.Stale, found.At = oci.Miss, c.how.Stale, c.how.At
	return t.remember(q, found, c.how), nil
}

// ask asks what the tag means, once for all who ask at the time: the owner of the tag's
// key, or if that is this node the registry.
func (t *tags) ask(ctx context.Context, q question) (c meaning, joined bool, err error) {
	own := func(ctx context.Context) (meaning, error) { return t.check(ctx, q) }
	if q.member || t.mesh.Only(q.Registry, q.place()) {
		return t.forMembers.Do(ctx, q.key, own)
	}
	return t.forClients.Do(ctx, q.key, func(ctx context.Context) (meaning, error) {
		return mesh.Along(ctx, t.mesh, q.Ref, q.place(),
			func(ctx context.Context) (meaning, error) {
				c, _, err := t.forMembers.Do(ctx, q.key, own)
				return c, err
			},
			func(ctx context.Context, p mesh.Peer) (meaning, error) {
				found, err := p.Tag(ctx, q.Ref, q.accept)
				if err != nil {
					return meaning{}, t.heard(q, err)
				}
				return meaning{Descriptor: oci.Descriptor{Digest: found.Digest, MediaType: found.MediaType, Size: found.Size}, how: found.Provenance}, nil
			})
	})
}

// whole gets the manifest that a tag means when the registry does not have the one
// that its HEAD named, or does not give it by its digest: the tag may just have moved, and
// some registries answer HEAD wrongly. absent is that answer. It says nothing about the tag.
func (t *tags) whole(ctx context.Context, q question, absent oci.Error) (*oci.Found, error) {
	if q.Offline || !t.mesh.MayAsk(q.Ref) {
		absent.By = oci.Nobody
		return nil, &absent
	}
	c, joined, err := t.forMembers.Do(ctx, q.key+" whole", func(ctx context.Context) (meaning, error) {
		found, err := t.manifests.fetch(ctx, q.Request, q.accept)
		return meaning{found: found}, err
	})
	if err != nil {
		return nil, err
	}
	found, _ := shared(c.found, joined, nil)
	return t.remember(q, found, oci.Provenance{At: found.At}), nil
}

// check asks upstream what a tag means: by HEAD, which costs no pull quota, and by GET
// if HEAD does not tell.
func (t *tags) check(ctx context.Context, q question) (meaning, error) {
	if q.Offline {
		return meaning{}, oci.OfflineError(q.Ref)
	}
	asked := time.Now()
	d, found, err := t.manifests.stat(ctx, q.Request, q.accept)
	switch {
	case err != nil:
		return meaning{}, err
	case found != nil:
		return meaning{found: found, how: oci.Provenance{At: found.At}}, nil
	default:
		return meaning{Descriptor: d, how: oci.Provenance{At: asked}}, nil
	}
}

// remember notes that the tag means a manifest that is verified. A stale answer of
// another node is not noted: nobody checked it. Of all who asked at the time one does it.
func (t *tags) remember(q question, found *oci.Found, told oci.Provenance) *oci.Found {
	if told.Stale == nil && !q.knows(found.Digest, told.At) {
		t.note(q, oci.Descriptor{Digest: found.Digest, MediaType: found.MediaType, Size: found.Size}, told.At)
		if told.Host == "" { // this node asked the registry
			t.words.relay.tell(q.asked(), found.Digest.String())
			offerTag(t, q, found, told.At)
		}
	}
	return found
}

// knows reports whether it is noted already that the tag meant that digest at that time, and the
// registry vouches for nothing by it.
func (q question) knows(d digest.Digest, at time.Time) bool {
	now, known := q.Shard.Tag(q.key)
	return known && now.Digest == d && now.Checked.Equal(at) && !q.Private
}

// note notes what the tag means by the question's Accept list, as the registry said at
// that time.
func (t *tags) note(q question, d oci.Descriptor, at time.Time) {
	t.grants.Grant(q.Request, oci.ManifestResource, at)
	q.Shard.SetTag(cache.Tag{Key: q.key, Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Checked: at})
}

// rememberLater notes what the tag means as soon as that manifest has come and is verified,
// unless somebody has heard of the tag since.
func (t *tags) rememberLater(q question, found *oci.Found, told oci.Provenance) {
	later := *found // the caller may change its own
	q.client = nil  // it may be long, and is of no more use
	t.manifests.awaited.add(t.pinned(q, found.Digest).Request, q.key, func() {
		if now, known := q.notedBy(q.key); !known || told.At.After(now.Checked) {
			t.remember(q, &later, told)
		}
	})
}

// pinned is the question about a digest that the tag means.
func (t *tags) pinned(q question, d digest.Digest) question {
	q.Digest = d
	return q
}

// keptAt returns the manifest of that digest if the shard has it and it may be served
// for the tag's repository: the registry said at that time that the tag means it, so it
// vouched for the manifest and what that lists.
func (t *tags) keptAt(ctx context.Context, q question, d digest.Digest, at time.Time) (*oci.Found, bool) {
	pinned := t.pinned(q, d).Request
	t.grants.Grant(pinned, oci.ManifestResource, at)
	return t.manifests.keptAt(ctx, pinned, t.grants.Known(pinned, oci.ManifestResource, t.believed(q)), at)
}

// lastKnown is what a tag last meant, if that is still here.
func (t *tags) lastKnown(ctx context.Context, q question, old cache.Tag) (*oci.Found, bool) {
	found, ok := t.keptAt(ctx, q, old.Digest, old.Checked)
	switch {
	case ok:
	case q.head:
		found = &oci.Found{Manifest: oci.Manifest{Digest: old.Digest, MediaType: old.MediaType}, Size: old.Size}
	default:
		return nil, false
	}
	found.Origin, found.At = oci.Hit, old.Checked
	return found, true
}

// holdersWithin is how long other nodes are asked for a stale manifest: the client has
// waited for the registry already.
const holdersWithin = 5 * time.Second

// fromHolders gets what a tag last meant from a node that holds it. This node may know
// the tag and lack the manifest: other nodes asked it for the tag alone.
func (t *tags) fromHolders(ctx context.Context, q question, old cache.Tag) (*oci.Found, bool) {
	pinned := t.pinned(q, old.Digest).Request
	if !t.grants.VouchedWithin(pinned, oci.ManifestResource, t.believed(q)) {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, holdersWithin)
	defer cancel()
	found, ok := t.manifests.fromNodes(ctx, pinned, t.manifests.holders(ctx, pinned))
	if ok {
		found.At = old.Checked
	}
	return found, ok
}

// believed is how long the registry's word on a tag counts at most.
func (t *tags) believed(q question) time.Duration {
	return max(q.StaleIfError, q.TagTTL, answerWithin)
}

// stale stands in for a fresh answer while upstream fails in a way that may pass.
func (t *tags) stale(ctx context.Context, q question, old cache.Tag, err error) (*oci.Found, bool) {
	e, ok := oci.AsError(err)
	if !ok || !e.LastWordCounts() || errors.Is(ctx.Err(), context.Canceled) || time.Since(old.Checked) > q.StaleIfError {
		return nil, false
	}
	found, ok := t.lastKnown(ctx, q, old)
	if !ok {
		found, ok = t.fromHolders(ctx, q, old)
	}
	if !ok {
		return nil, false
	}
	found.Stale = e
	if !found.Marked() {
		return found, true
	}
	t.log.WarnContext(ctx, "stale manifest served", "registry", q.Registry, "image", q.Repository, "tag", q.Tag,
		"digest", old.Digest.String(), "checked", old.Checked, "error", err)
	return found, true
}
