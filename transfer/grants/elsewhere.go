package grants

import (
	"context"
	"errors"
	"time"

	"oci-proxy/transfer/oci"
)

// vouchWithin is how long a private registry is asked to vouch for what a mirror could
// deliver. There is time left then to ask the mirror, by the registry's last word.
const vouchWithin = 5 * time.Second

// WithMirrors returns a context by which upstream is asked for q: mirrors may answer, too,
// unless the registry is private and does not vouch for q. It may ask the registry, for 5 s
// at most. What a tag of a private registry means, only the registry itself can say.
func (g *Grants) WithMirrors(ctx context.Context, q Request, as oci.Resource) context.Context {
	if !q.Mirrored || q.Private && q.Digest == "" {
		return ctx
	}
	limited, cancel := context.WithTimeout(ctx, vouchWithin)
	defer cancel()
	if !g.MayShow(limited, q, as) {
		return ctx
	}
	return oci.WithMirrors(ctx)
}

// Kept is content that was delivered for q just now, as it is offered to an archive. It can
// be opened for as long as the registry need not be asked about it again.
func Kept(g *Grants, q Request, as oci.Resource, mediaType string, size int64) oci.Kept {
	return oci.Kept{Ref: q.Ref, MediaType: mediaType, Size: size, Private: q.Private, Open: func() (oci.Body, error) {
		pass := g.Recent(q, as)
		if pass == nil {
			return nil, errNoPass
		}
		return pass.Blob()
	}}
}

// errNoPass: the shard does not hold the content any more, or must not show it any more.
var errNoPass = errors.New("this node does not hold it any more, or must not show it")

// When returns when q's registry vouched for what upstream has just delivered, if it was
// asked at that time. A mirror does not speak for a private registry, whose last word counts.
func (q Request) When(as oci.Resource, by oci.Party, asked time.Time) time.Time {
	if by == oci.Mirror && q.Private {
		return q.Shard.ledger.vouchedAt(q.Ref, as)
	}
	return asked
}
