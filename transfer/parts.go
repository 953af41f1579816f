package transfer

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/cache"
	"oci-proxy/transfer/flight"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

const (
	// maxGranted bounds the large manifests whose parts are known to be granted.
	maxGranted = 4096
	// grantedFor is for how long the parts of a large manifest are not granted again. It
	// is much less than a grant counts.
	grantedFor = time.Minute
)

// parts note what the manifests of the shard list. A large one is read for that once
// for all who ask at the time, and rarely: taking one apart costs as much as sending
// it to hundreds.
type parts struct {
	sizes   *flight.Sizes
	grants  *grants.Grants
	memory  *wait.Budget
	reading *wait.Calls[manifestKey, struct{}]

	mu      sync.Mutex // guards granted; never held during I/O
	granted *simplelru.LRU[manifestKey, time.Time]
}

func newParts(r *rooms) *parts {
	granted, _ := simplelru.NewLRU[manifestKey, time.Time](maxGranted, nil) // the size is right
	return &parts{
		sizes: r.sizes, grants: r.grants, memory: r.memory, granted: granted,
		reading: wait.NewCalls[manifestKey, struct{}](r.life, answerWithin),
	}
}

// see notes the sizes that a manifest tells, once, and grants the blobs that it lists if
// q's registry vouched for the manifest at a time that is not zero.
func (p *parts) see(ctx context.Context, q grants.Request, pass *grants.Pass, m cache.Manifest, at time.Time) {
	granted := !q.Private || at.IsZero() || m.Content == nil && p.grantedSince(q, at.Add(-grantedFor))
	if !granted || !p.sizes.Learnt(q.Content()) {
		p.note(ctx, q, pass, m, at)
	}
}

// note reads a manifest and notes all that it lists. If it can't be read now, its parts
// are asked for one by one.
func (p *parts) note(ctx context.Context, q grants.Request, pass *grants.Pass, m cache.Manifest, at time.Time) {
	if m.Content != nil {
		p.take(q, m.MediaType, m.Content, at)
		return
	}
	_, _, _ = p.reading.Do(ctx, keyOf(q), func(ctx context.Context) (struct{}, error) {
		claim := p.memory.Claim()
		defer claim.Release()
		if err := claim.Grow(ctx, m.Size); err != nil {
			return struct{}{}, err
		}
		content, err := pass.Read(m)
		if err == nil {
			p.take(q, m.MediaType, content, at)
		}
		return struct{}{}, err
	})
}

// take notes what a manifest lists.
func (p *parts) take(q grants.Request, mediaType string, content []byte, at time.Time) {
	p.sizes.Learn(q.Registry, q.Digest, mediaType, content)
	p.grants.GrantParts(q, mediaType, content, at)
	if q.Private && !at.IsZero() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.granted.Add(keyOf(q), at)
	}
}

// grantedSince reports whether the manifest's parts were granted after that time, and
// the registry has not taken that back.
func (p *parts) grantedSince(q grants.Request, since time.Time) bool {
	p.mu.Lock()
	at, known := p.granted.Get(keyOf(q))
	p.mu.Unlock()
	return known && at.After(since) && p.grants.Stands(oneDigest(q), oci.ManifestResource, at)
}

// oneDigest is q without a tag.
func oneDigest(q grants.Request) grants.Request {
	ref := oci.Ref{Registry: q.Registry, Repository: q.Repository, Digest: q.Digest}
	return q.For(ref)
}
