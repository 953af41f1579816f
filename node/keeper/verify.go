package keeper

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
)

// A Verify begins to verify what a node holds, or asks how far it is. It ends when nobody
// has asked for patience.
type Verify struct {
	Run   int64 `json:"run"`   // of the answer before; 0 begins one
	Known int   `json:"known"` // how many wrong blobs were told already
}

const (
	// patience is for how long a verification goes on that nobody asks about.
	patience = 30 * time.Second
	// maxTold bounds the wrong blobs in one answer, and maxWrong those that are named.
	maxTold  = 500
	maxWrong = 10_000
)

// A Progress is how far a verification is.
type Progress struct {
	Run   int64   `json:"run"`
	Of    int     `json:"of"`    // blobs that there were at the beginning
	Blobs int     `json:"blobs"` // that were looked at
	Bytes int64   `json:"bytes"`
	Bad   int     `json:"bad"`             // how many were wrong
	Wrong []Wrong `json:"wrong,omitempty"` // those that were not told yet
	Done  bool    `json:"done"`
}

// A Wrong is a blob that was wrong, and has left the shard.
type Wrong struct {
	Digest   digest.Digest `json:"digest"`
	Registry string        `json:"registry"`
	Error    string        `json:"error"`
}

// A run is one verification of all shards.
type run struct {
	stop context.CancelFunc

	mu    sync.Mutex // guards the fields below; never held during I/O
	at    Progress
	wrong []Wrong
	asked time.Time
	ended bool
}

// errNoRun: the verification that was asked about is not known.
var errNoRun = errors.New("the verification was ended: the node has restarted, or nobody asked about it for too long")

// verify begins a verification, or joins the one under way, or tells how far it is.
func (k *Keeper) verify(v *Verify) Answer {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v.Run == 0 && (k.run == nil || k.run.over()) {
		k.run = k.begin()
	}
	if k.run == nil {
		return Answer{Error: errNoRun.Error()}
	}
	p, ok := k.run.progress(v)
	if !ok {
		return Answer{Error: errNoRun.Error()}
	}
	return Answer{Progress: &p}
}

// begin begins a verification; nil if the node is closing.
func (k *Keeper) begin() *run {
	ctx, stop := context.WithCancel(k.life.Context())
	now := time.Now()
	r := &run{stop: stop, at: Progress{Run: now.UnixNano()}, asked: now}
	if !k.life.Go(func() { k.work(ctx, r) }) {
		stop()
		return nil
	}
	return r
}

// work verifies all shards.
func (k *Keeper) work(ctx context.Context, r *run) {
	defer r.end()
	for _, shard := range k.shards.Shards() {
		_ = shard.Listed(ctx) // the loop below sees ctx's end
		for _, one := range shard.Stats() {
			r.expect(int(one.Items))
		}
	}
	for _, shard := range k.shards.Shards() {
		err := shard.Stock().Verify(ctx, func(e cache.Entry, err error) {
			if err != nil {
				k.log.Warn("blob removed from the cache: its bytes are not what its digest names", "digest", e.Digest.String(), "registry", e.Registry, "error", err)
			}
			r.note(e, err)
		})
		if err != nil {
			return // nobody asks any more, or the node is closing
		}
	}
	r.finish()
}

// expect adds blobs that are to be looked at.
func (r *run) expect(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at.Of += n
}

// note notes that a blob was looked at. Where nobody asks any more, it stops the run.
func (r *run) note(e cache.Entry, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at.Blobs++
	r.at.Bytes += e.Size
	if err != nil {
		r.at.Bad++
		if len(r.wrong) < maxWrong {
			r.wrong = append(r.wrong, Wrong{e.Digest, e.Registry, err.Error()})
		}
	}
	if time.Since(r.asked) > patience {
		r.stop()
	}
}

// finish says that all was looked at.
func (r *run) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at.Done = true
}

// end says that nothing more is looked at.
func (r *run) end() {
	r.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

// over reports whether the run has ended, or is about to.
func (r *run) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended || r.at.Done || time.Since(r.asked) > patience
}

// progress tells how far the run is, if it is the one that is asked about.
func (r *run) progress(v *Verify) (Progress, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended && !r.at.Done || v.Run != 0 && v.Run != r.at.Run || v.Known < 0 || v.Known > len(r.wrong) {
		return Progress{}, false
	}
	r.asked = time.Now()
	p := r.at
	p.Wrong = r.wrong[v.Known:min(len(r.wrong), v.Known+maxTold)]
	p.Done = p.Done && v.Known+len(p.Wrong) == len(r.wrong)
	return p, true
}
