package egress

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/oci"
)

// maxBrought bounds the blobs of which it is remembered who brought them.
const maxBrought = 1024

// brought remembers by way of which member a whole blob last came. Whoever asks for it again
// from its beginning so soon may have found that the bytes are wrong. Then another way is
// tried first: the member may be broken, or something on its way out. What is known to have
// come out wrong, and was a mirror's, no member asks a mirror for again so soon.
type brought struct {
	mu sync.Mutex // guards by; never held during I/O
	by *simplelru.LRU[oci.Content, carrier]
}

// A carrier is the member that brought a blob.
type carrier struct {
	member string
	until  time.Time
}

func newBrought() *brought {
	by, err := simplelru.NewLRU[oci.Content, carrier](maxBrought, nil)
	if err != nil {
		panic(err) // it only refuses a size below 1
	}
	return &brought{by: by}
}

// add notes that a whole blob came by way of a member.
func (b *brought) add(c oci.Content, member string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.by.Add(c, carrier{member, time.Now().Add(broughtFor)})
}

// last returns by way of which member the blob came a short while ago, "" for none.
func (b *brought) last(c oci.Content) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if one, ok := b.by.Get(c); ok && time.Now().Before(one.until) {
		return one.member
	}
	return ""
}
