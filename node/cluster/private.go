package cluster

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
)

// private remembers which registries any member ever treated as private, for as
// long as the cache directory lives.
type private struct {
	registries Registries
	noted      *lru.Cache[string, bool] // by registry: whether there is a note on disk
}

func newPrivate(registries Registries) *private {
	noted, err := lru.New[string, bool](maxAsked)
	if err != nil {
		panic(err) // it only refuses a size below 1
	}
	return &private{registries: registries, noted: noted}
}

// is reports whether a registry is private or ever was. now says that a member
// treats it so now.
func (p *private) is(registry string, now bool) bool {
	noted, known := p.noted.Get(registry)
	if !known {
		_, noted = p.registries.Store(registry).Tag(noteKey(registry))
	}
	if now && !noted {
		p.registries.Store(registry).SetTag(cache.Tag{Key: noteKey(registry), Digest: digest.FromString(registry), Checked: time.Now()})
		noted = true
	}
	p.noted.Add(registry, noted)
	return noted
}

// noteKey is where a private registry is noted among the tags. No tag's key
// begins like that.
func noteKey(registry string) string { return cache.Kept + "private " + registry }
