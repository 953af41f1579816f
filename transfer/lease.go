package transfer

import (
	"context"
	"io"
	"sync"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// A lease is a large manifest in memory that the shard does not keep, with the memory
// claimed for it. All who asked at the time send the same bytes.
type lease struct {
	bytes []byte
	claim *wait.Claim

	mu    sync.Mutex // guards users; never held during I/O
	users int
}

// linger is how long a lease waits for its first users: they were waiting for it.
const linger = time.Second

// newLease returns a lease for those who waited. It ends when the last of them has
// sent the bytes.
func newLease(bytes []byte, claim *wait.Claim) *lease {
	l := &lease{bytes: bytes, claim: claim, users: 1}
	time.AfterFunc(linger, l.leave)
	return l
}

// open returns the bytes for one user, or ErrNotFound after the lease's end.
func (l *lease) open() (oci.Body, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users == 0 {
		return nil, cache.ErrNotFound
	}
	l.users++
	return &leased{lease: l}, nil
}

// leave ends one use.
func (l *lease) leave() {
	l.mu.Lock()
	l.users--
	last := l.users == 0
	l.mu.Unlock()
	if last {
		l.claim.Release()
	}
}

// A leased is one user's view of a lease.
type leased struct {
	lease *lease
	once  sync.Once
}

// Send implements oci.Body.
func (b *leased) Send(_ context.Context, w io.Writer, off, n int64) (int64, error) {
	k, err := w.Write(b.lease.bytes[off : off+n])
	return int64(k), err
}

// Close implements oci.Body.
func (b *leased) Close() error {
	b.once.Do(b.lease.leave)
	return nil
}
