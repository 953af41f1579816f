package transfer

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/grants"
)

const (
	// maxAwaited bounds the manifests that tags wait for.
	maxAwaited = 1024
	// maxWaiting bounds the tags that wait for one manifest. Others are noted when they are
	// asked for again.
	maxWaiting = 8
)

// awaited are tags whose meaning a HEAD has told, until their manifest is here and verified.
// docker and containerd ask for a tag by HEAD, and then for the manifest by its digest: no
// request of theirs says that the two belong together. Once the manifest has come, the tag
// is noted as if it had been asked for by GET, so that it can be pulled in an outage.
type awaited struct {
	mu         sync.Mutex // guards byManifest; never held while a tag is noted
	byManifest *simplelru.LRU[manifestKey, map[string]func()]
}

func newAwaited() *awaited {
	list, err := simplelru.NewLRU[manifestKey, map[string]func()](maxAwaited, nil)
	if err != nil {
		panic(err) // the size is positive
	}
	return &awaited{byManifest: list}
}

// add makes note wait for a manifest. It is that of a tag's key: a newer one takes its place.
func (a *awaited) add(manifest grants.Request, key string, note func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	waiting, ok := a.byManifest.Get(keyOf(manifest))
	if !ok {
		waiting = map[string]func(){}
		a.byManifest.Add(keyOf(manifest), waiting)
	}
	if _, known := waiting[key]; known || len(waiting) < maxWaiting {
		waiting[key] = note
	}
}

// came notes the tags that wait for a manifest, which is here.
func (a *awaited) came(manifest grants.Request) {
	for _, note := range a.take(keyOf(manifest)) {
		note()
	}
}

// take removes and returns what waits for a manifest.
func (a *awaited) take(key manifestKey) map[string]func() {
	a.mu.Lock()
	defer a.mu.Unlock()
	waiting, _ := a.byManifest.Peek(key)
	a.byManifest.Remove(key)
	return waiting
}
