package upstream

import (
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// How much of each kind is remembered. Clients choose the names of registries and
// repositories, so each memory has a bound, and forgets what was used least
// recently.
const (
	maxStrangers    = 256  // registries that nobody configured
	maxRepositories = 4096 // repositories of one registry, with what they asked for
	maxTokens       = 4096 // of one registry
	maxOutages      = 64   // places that one registry's requests could not dial
)

// How many bytes of what registries send are remembered, of each kind: of one that the
// operator named, and of one of the maxStrangers others, whose challenges and tokens may be
// as long as they like.
const (
	maxHeld         = 32 << 20
	strangersTokens = 512 << 10
	strangersWants  = 256 << 10
)

// A weighed memory is one that holds a number of bytes at most. Its owner guards it.
type weighed[K comparable, V any] struct {
	*simplelru.LRU[K, V]
	weight func(K, V) int // in bytes
	held   int            // the weight of all
	most   int            // of held
}

// newWeighed returns a memory of at most size entries and maxHeld bytes.
func newWeighed[K comparable, V any](size int, weight func(K, V) int) *weighed[K, V] {
	m := &weighed[K, V]{weight: weight, most: maxHeld}
	lru, err := simplelru.NewLRU(size, func(k K, v V) { m.held -= weight(k, v) })
	if err != nil { // only for a size below 1
		panic("upstream: " + err.Error())
	}
	m.LRU = lru
	return m
}

// Add keeps v under k, and forgets what was used least recently if that is too much.
func (m *weighed[K, V]) Add(k K, v V) {
	m.Remove(k)
	m.held += m.weight(k, v)
	m.LRU.Add(k, v)
	for m.held > m.most && m.Len() > 1 {
		m.RemoveOldest()
	}
}

// entryWeight is about what an entry takes beside its text, in bytes.
const entryWeight = 256

// newMemory returns a memory of at most size entries. Its owner guards it.
func newMemory[K comparable, V any](size int) *simplelru.LRU[K, V] {
	m, err := simplelru.NewLRU[K, V](size, nil)
	if err != nil { // only for a size below 1
		panic("upstream: " + err.Error())
	}
	return m
}

// challenges remember what each repository of a registry asked for in its last
// 401, or took without asking, so that the next request needs no 401.
type challenges struct {
	mu     sync.Mutex // guards the fields below; never held during I/O
	byRepo *weighed[string, wanted]
	whole  []challenge // of the registry as a whole, at /v2/
	asked  time.Time   // when
}

// A wanted is what a repository wants to be shown.
type wanted struct {
	challenge
	unasked bool // it asked for nothing: the challenge is that of the registry as a whole
}

// greetingFor is how long it is remembered what a registry's /v2/ asks for.
const greetingFor = 10 * time.Minute

// greeting returns the challenges at /v2/, and whether they are known.
func (c *challenges) greeting() ([]challenge, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	offered := make([]challenge, len(c.whole))
	for i, ch := range c.whole {
		offered[i] = challenge{ch.scheme, maps.Clone(ch.params)} // passes.choose resolves the realm in it
	}
	return offered, !c.asked.IsZero() && time.Since(c.asked) < greetingFor
}

// greeted keeps the challenges at /v2/, none too.
func (c *challenges) greeted(offered []challenge) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole, c.asked = offered, time.Now()
}

// newChallenges returns an empty memory.
func newChallenges() *challenges {
	return &challenges{byRepo: newWeighed(maxRepositories, weightOfWanted)}
}

// weightOfWanted is what is held of what a repository wants.
func weightOfWanted(repo string, w wanted) int {
	n := entryWeight + len(repo) + len(w.scheme)
	for name, value := range w.params {
		n += len(name) + len(value)
	}
	return n
}

// recall returns what repo wants.
func (c *challenges) recall(repo string) (wanted, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byRepo.Get(repo)
}

// remember keeps what repo wants.
func (c *challenges) remember(repo string, w wanted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byRepo.Add(repo, w)
}

// forget drops what repo wants: the next request is a bare one again.
func (c *challenges) forget(repo string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byRepo.Remove(repo)
}
