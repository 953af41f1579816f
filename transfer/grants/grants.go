// Package grants knows who may have private content. It is the only door to what
// the shard holds.
//
// Content of a private registry is served only for a repository that the
// registry vouched for: by answering for that digest there, or by a manifest of
// that repository that lists the blob. [Grants.Grant] notes such an answer,
// [Grants.Revoke] what it takes back, and [Grants.Allowed] gives the [Pass] without which
// nothing in the shard can be opened.
//
// Content that one private registry brought is never unlocked by another
// registry's word, which costs an attacker nothing, but only by its delivering
// the bytes itself. Only the registry and its token server speak for a
// repository, and only by what they answer about manifests and blobs.
//
// The rules stand in this file. ledger.go remembers what each registry's book.go
// holds, notes.go writes it down, old.go reads what earlier versions wrote, and
// herald.go tells the other members what was taken back.
package grants

import (
	"context"
	"log/slog"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// vouchFor is how long a private registry's word is believed. While the registry
// fails to answer, its last word counts as long as a tag's last manifest does.
const vouchFor = 10 * time.Minute

// Config is what Grants work with. All fields are needed.
type Config struct {
	Upstream oci.Upstream
	Mesh     *mesh.Mesh
	Site     func(registry string) Site // what another registry means, which brought content
	Life     *wait.Life
	Within   time.Duration // how long asking the registry may take
	Log      *slog.Logger
}

// Grants say who may have what. Their methods may be called from any goroutine, but
// not under a lock: those that give a Pass may read the disk. Allowed and MayShow may
// ask the registry. Revoke, Refused and Lost wait for the disk, a second at most, if
// they take something back. Glance waits for nobody.
type Grants struct {
	cfg    Config
	asking *wait.Calls[question, time.Time]
	herald *herald
	glance *glances
}

// A question is what a private registry is asked: does the repository have it?
type question struct {
	ref      oci.Ref
	resource oci.Resource
	member   bool
	instead  bool // members are asked in the registry's place
}

// New returns Grants. Close them.
func New(cfg Config) *Grants {
	return &Grants{cfg: cfg, asking: wait.NewCalls[question, time.Time](cfg.Life, cfg.Within), herald: newHerald(cfg), glance: newGlances(cfg.Life)}
}

// Close ends the telling of other members. What is asked of the registry ends with
// the Life of the Config.
func (g *Grants) Close() { g.herald.close() }

// Allowed returns a Pass if the shard holds what q names and it may be served for
// q as that resource. Without a Pass and an error the registry has to deliver it.
// An error says that the registry refused, or could not be asked.
func (g *Grants) Allowed(ctx context.Context, q Request, as oci.Resource) (*Pass, error) {
	p := g.held(q, as)
	if p == nil || !q.Private {
		return p, nil
	}
	known := !p.at.IsZero()
	if known && (q.Offline || within(p.at, vouchFor)) {
		return p, nil
	}
	if q.Offline {
		if p.at = askMembers(ctx, g, q, as); p.at.IsZero() {
			return nil, oci.OfflineError(q.Ref)
		}
		return p, nil
	}
	at, err := g.ask(ctx, q, as)
	if at.IsZero() {
		return nil, err
	}
	p.at = at
	return p, nil
}

// Known is Allowed without asking anybody: the registry must have vouched for the
// content within that time. It returns nil if there is no Pass.
func (g *Grants) Known(q Request, as oci.Resource, since time.Duration) *Pass {
	p := g.held(q, as)
	if p == nil || q.Private && !within(p.at, since) {
		return nil
	}
	return p
}

// Recent is Known for content that the registry vouched for so recently that it
// need not be asked again.
func (g *Grants) Recent(q Request, as oci.Resource) *Pass { return g.Known(q, as, vouchFor) }

// ForMember returns a Pass for another member, nil if it may not have the content.
// A member that knows the registry as private serves only what the registry
// vouched for, so it may have it by those terms; others get what this node would
// serve too. The registry is not asked: that is for the member to do.
func (g *Grants) ForMember(q Request, as oci.Resource, terms mesh.Terms) *Pass {
	if terms.Vouched {
		return g.held(q, as)
	}
	return g.Recent(q, as)
}

// Glance returns whether the shard holds q's digest, and a member that knows q's registry as
// private may have it, as ForMember says; and its size. The answer comes at once, also from
// a disk that hangs: it is a sign of life. It may then miss a blob.
func (g *Grants) Glance(q Request) (size int64, held bool) {
	h, held := g.glance.at(q.Shard, q.Digest)
	return h.Size, held && !g.foreign(q, h.Registry)
}

// Vouched reports whether the registry need not, or did recently, vouch for q,
// whether or not the shard holds it.
func (g *Grants) Vouched(q Request, as oci.Resource) bool {
	return g.VouchedWithin(q, as, vouchFor)
}

// VouchedWithin reports whether the registry need not, or did within that time, vouch
// for q, whether or not the shard holds it.
func (g *Grants) VouchedWithin(q Request, as oci.Resource, since time.Duration) bool {
	return !q.Private || within(g.At(q, as), since)
}

// MayShow is Vouched, but asks the registry if need be: whether content that
// another node holds may be served for q.
func (g *Grants) MayShow(ctx context.Context, q Request, as oci.Resource) bool {
	if g.Vouched(q, as) {
		return true
	}
	if q.Offline {
		return !g.At(q, as).IsZero() || !askMembers(ctx, g, q, as).IsZero()
	}
	at, err := g.ask(ctx, q, as)
	return err == nil && !at.IsZero()
}

// At returns when the registry last vouched for q, zero if it need not, never did,
// or took it back.
func (g *Grants) At(q Request, as oci.Resource) time.Time {
	if !q.Private {
		return time.Time{}
	}
	return q.Shard.ledger.vouchedAt(q.Ref, as)
}

// Public reports whether the shard holds q's digest as public content, so that
// anybody may be told that it does.
func (g *Grants) Public(q Request) bool {
	origin, held := q.Shard.Origin(q.Digest)
	return held && !g.guarded(origin)
}

// Grant notes that q's registry vouched for it, as that resource, at a time; zero
// stands for never.
func (g *Grants) Grant(q Request, as oci.Resource, at time.Time) {
	if q.Private && !at.IsZero() {
		q.Shard.ledger.vouch(q.Ref, as, at, q.Stranger)
	}
}

// GrantParts notes that q's registry vouched for the blobs that a manifest of q's
// repository lists. Manifests are asked for one by one: many registries accept an
// index that lists manifests which they do not have in that repository.
func (g *Grants) GrantParts(q Request, mediaType string, manifest []byte, at time.Time) {
	if !q.Private || at.IsZero() {
		return
	}
	for _, p := range oci.Parts(mediaType, manifest) {
		if p.As != oci.BlobResource {
			continue
		}
		q.Shard.ledger.vouch(oci.Ref{Registry: q.Registry, Repository: q.Repository, Digest: p.Digest}, p.As, at, q.Stranger)
	}
}

// Delivered notes that q's registry delivered the bytes, and that it vouched for
// them at that time; it may have refused the repository since.
func (g *Grants) Delivered(q Request, as oci.Resource, at time.Time) {
	if origin, held := q.Shard.Origin(q.Digest); held && origin != q.Registry && g.guarded(origin) {
		q.Shard.ledger.deliver(q.Ref, q.Stranger)
	}
	g.Grant(q, as, at)
}

// Revoke draws the consequences of an error that a request about q ended with. If
// the registry refused, all that it vouched for in the repository before is taken
// back, here and at the other members. If it says that it does not have the digest
// or tag, that is. Nothing follows from what anybody else says.
func (g *Grants) Revoke(q Request, as oci.Resource, err error) {
	e, ok := oci.AsError(err)
	if !ok || !q.Private || !e.Authoritative() || !e.Told.IsZero() { // what was told before was heard then
		return
	}
	switch {
	case e.Kind == oci.Denied && e.Status != 0:
		known := g.refuse(q)
		if !e.Relayed {
			g.herald.tell(news{ref: q.Repo()}, e, known)
		}
	case e.Kind == oci.NotFound:
		known := g.lose(q, as)
		if !e.Relayed && (known || q.Digest != "") { // clients ask for tags that never were all the time
			g.herald.tell(news{missing(q), as, true}, e, known)
		}
	}
}

// missing names what q's registry does not have: the digest if q has one, else the tag.
func missing(q Request) oci.Ref {
	ref := q.Ref
	if ref.Digest != "" {
		ref.Tag = ""
	}
	return ref
}

// Refused hears that the registry refused another member q's repository.
func (g *Grants) Refused(q Request) {
	if q.Private {
		g.refuse(q)
	}
	g.cfg.Log.Debug("a member told of a refusal", "registry", q.Registry, "image", q.Repository)
}

// Lost hears that the registry told another member that it does not have q's digest,
// as that resource, or q's tag.
func (g *Grants) Lost(q Request, as oci.Resource) {
	if q.Private {
		g.lose(q, as)
	}
	g.cfg.Log.Debug("a member told of a loss", "registry", q.Registry, "image", q.Repository, "tag", q.Tag, "digest", q.Digest.String())
}

// Stands reports whether what q's registry said at that time still counts, about what
// q's tag means or, as that resource, about a list of the repository. A private registry
// takes it back by a refusal, or by not having the tag any more. It must have vouched
// for the answer while it was private.
func (g *Grants) Stands(q Request, as oci.Resource, then time.Time) bool {
	return !q.Private || q.Shard.ledger.stands(q.Ref, as, then)
}

// noted is how long Revoke waits for the disk at most. The refusal counts at
// once; only a crash within that time could lose it.
const noted = time.Second

// refuse notes a refusal of a repository that the registry ever vouched for, and
// reports whether it did: strangers may name any number of others.
func (g *Grants) refuse(q Request) (known bool) {
	known = q.Shard.ledger.refuse(q.Ref)
	if known {
		q.Shard.notes.sync(noted)
	}
	return known
}

// lose notes that the registry does not have q's digest or tag, and reports whether
// it had vouched for that.
func (g *Grants) lose(q Request, as oci.Resource) (known bool) {
	known = q.Shard.ledger.lose(q.Ref, as)
	if known {
		q.Shard.notes.sync(noted)
	}
	return known
}

// held returns a Pass if the shard holds q's digest, unless another registry
// brought it that is private and q's own has not delivered it. Whether q's
// registry vouches for it is for the caller to see.
func (g *Grants) held(q Request, as oci.Resource) *Pass {
	h, held := q.Shard.find(q.Digest)
	if !held || g.foreign(q, h.Registry) {
		return nil
	}
	return &Pass{shard: q.Shard, ref: q.Ref, origin: h.Registry, size: h.Size, at: g.At(q, as)}
}

// foreign reports whether content is not for q's clients because another registry
// brought it, which is private, and q's own has not delivered it.
func (g *Grants) foreign(q Request, origin string) bool {
	return origin != q.Registry && g.guarded(origin) && !q.Shard.ledger.delivered(q.Ref, q.Stranger)
}

// guarded reports whether what a registry brought is not for the clients of
// others: it is private, or nobody can tell which registry it was.
func (g *Grants) guarded(origin string) bool { return origin == "" || g.cfg.Site(origin).Private }

// within reports whether that time is known and not longer ago than d. A time to
// come is that of a clock that was set back: it proves nothing.
func within(at time.Time, d time.Duration) bool {
	age := time.Since(at)
	return !at.IsZero() && age >= 0 && age < d
}
