package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

const (
	patience = 75 * time.Second // for one pull at one node; nodes give up after 40 s
	tries    = 20               // nodes that one pull may lose
	moreLoad = 256              // pulls under way at a time, beyond which none is begun
)

// errWrong is the error of content that does not have its digest.
var errWrong = errors.New("wrong bytes")

// A Load pulls blobs through nodes, and hashes every byte that it gets.
type Load struct {
	client http.Client

	mu        sync.Mutex
	rng       *rand.Rand
	pulls     int
	failed    int // a node that nobody disturbed did not deliver
	wrong     int
	moved     int // pulls that went on elsewhere because their node was killed or stopped
	skipped   int // pulls that were due while too many were under way
	slowest   time.Duration
	delivered map[string]int64 // sizes, by digest
	reasons   []string         // of the first failures
}

func newLoad(seed uint64) *Load {
	l := &Load{rng: rand.New(rand.NewPCG(seed, 1)), delivered: map[string]int64{}}
	l.client.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	l.client.Timeout = patience
	return l
}

// pick chooses one of the nodes that are up, or returns nil.
func (l *Load) pick(among []*Node) *Node {
	var up []*Node
	for _, n := range among {
		if _, ok := n.calm(); ok {
			up = append(up, n)
		}
	}
	if len(up) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return up[l.rng.IntN(len(up))]
}

// Pull pulls a blob through any of these nodes that is up. If that one is disturbed meanwhile,
// another takes its place, as behind a balancer.
func (l *Load) Pull(ctx context.Context, among []*Node, b *Blob) {
	began := time.Now()
	var last error
	for range tries {
		n := l.pick(among)
		if n == nil {
			pause(ctx, 100*time.Millisecond)
			last = errors.New("no node is up")
			continue
		}
		before, _ := n.calm()
		err := l.fetch(ctx, n, b)
		after, up := n.calm()
		switch {
		case err == nil:
			l.done(b, time.Since(began))
			return
		case ctx.Err() != nil:
			return
		case errors.Is(err, errWrong) || up && before == after:
			l.fail(fmt.Errorf("%s after %s: %w", n.Name, time.Since(began).Round(time.Millisecond), err))
			return
		}
		last = err
		l.mu.Lock()
		l.moved++
		l.mu.Unlock()
	}
	l.fail(fmt.Errorf("every try: %w", last))
}

// done notes a pull that went well.
func (l *Load) done(b *Blob, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pulls++
	l.slowest = max(l.slowest, took)
	l.delivered[b.Digest] = b.Size
}

// fail notes a pull that did not.
func (l *Load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pulls++
	if errors.Is(err, errWrong) {
		l.wrong++
	} else {
		l.failed++
	}
	if len(l.reasons) < 10 {
		l.reasons = append(l.reasons, time.Now().UTC().Format(time.TimeOnly)+" "+err.Error())
	}
}

// fetch gets a blob from a node. Content with another digest is errWrong.
func (l *Load) fetch(ctx context.Context, n *Node, b *Blob) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL("/v2/up/org/once/blobs/"+b.Digest), http.NoBody)
	if err != nil {
		return fmt.Errorf("asking %s: %w", n.Name, err)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // as much of it as comes
		return fmt.Errorf("%s of %s: %s", resp.Status, b.Digest, text)
	}
	hash := sha256.New()
	size, err := io.Copy(hash, resp.Body)
	if err != nil {
		return fmt.Errorf("%s ended after %d of %d bytes: %w", b.Digest, size, b.Size, err)
	}
	if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); got != b.Digest {
		return fmt.Errorf("%w: %s is %s of %d bytes", errWrong, b.Digest, got, size)
	}
	return nil
}

// All pulls each blob through one of these nodes, so many at a time.
func (l *Load) All(ctx context.Context, among []*Node, blobs []*Blob, lanes int) {
	l.inLanes(lanes, len(blobs), func(i int) { l.Pull(ctx, among, blobs[i]) })
}

// Each pulls each blob through each of these nodes, so many at a time. All nodes are asked for
// a blob at about the same moment.
func (l *Load) Each(ctx context.Context, nodes []*Node, blobs []*Blob, lanes int) {
	l.inLanes(lanes, len(blobs)*len(nodes), func(i int) {
		at := i % len(nodes)
		l.Pull(ctx, nodes[at:at+1], blobs[i/len(nodes)])
	})
}

// inLanes calls do with 0 to n-1, so many at a time.
func (l *Load) inLanes(lanes, n int, do func(int)) {
	var group sync.WaitGroup
	free := make(chan struct{}, lanes)
	for i := range n {
		free <- struct{}{}
		group.Go(func() {
			defer func() { <-free }()
			do(i)
		})
	}
	group.Wait()
}

// Keep pulls so many blobs a second through the nodes that among returns, the first of them most
// often, until ctx ends. What is under way then goes on until whole ends. The function that it
// returns waits for that.
func (l *Load) Keep(ctx, whole context.Context, among func() []*Node, blobs []*Blob, perSecond int) (wait func()) {
	var group sync.WaitGroup
	free := make(chan struct{}, moreLoad)
	l.mu.Lock()
	popular := rand.NewZipf(rand.New(rand.NewPCG(l.rng.Uint64(), 2)), 1.1, 8, uint64(len(blobs)-1))
	l.mu.Unlock()
	one := func(b *Blob) {
		defer func() { <-free }()
		l.Pull(whole, among(), b)
	}
	group.Go(func() {
		began, due := time.Now(), 0
		for ctx.Err() == nil {
			for ; due < int(time.Since(began).Seconds()*float64(perSecond)); due++ { // also those that a busy machine missed
				b := blobs[popular.Uint64()]
				select {
				case free <- struct{}{}:
					group.Go(func() { one(b) })
				default:
					l.mu.Lock()
					l.skipped++
					l.mu.Unlock()
				}
			}
			pause(ctx, time.Second/time.Duration(perSecond))
		}
	})
	return group.Wait
}

// unique returns the bytes of all blobs that were delivered, each counted once.
func (l *Load) unique() (bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, size := range l.delivered {
		bytes += size
	}
	return bytes
}
