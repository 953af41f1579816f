package grants

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// TestMain lets the test binary be the process that kill_test.go kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(dir)
	}
	testkit.Main(m)
}

const private = "private.example"

// blobOf names a blob of a registry's repository.
func blobOf(registry, repository, content string) oci.Ref {
	return oci.Ref{Registry: registry, Repository: repository, Digest: digest.FromString(content)}
}

// blob names a blob of the private registry.
func blob(repository, content string) oci.Ref { return blobOf(private, repository, content) }

// start opens a shard and closes it when the test ends.
func start(t testing.TB, dir string, fault func(op, name string) error) *Shard {
	t.Helper()
	s := OpenShard(dir, cache.Options{Fault: fault})
	t.Cleanup(func() { _ = s.Close() }) // the test may have closed it
	return s
}

// restart closes a shard and opens it again.
func restart(t testing.TB, s *Shard, dir string) *Shard {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return start(t, dir, nil)
}

// vouches notes that the registry vouched for these blobs that long ago.
func (l *ledger) vouches(ago time.Duration, refs ...oci.Ref) {
	for _, ref := range refs {
		l.vouch(ref, oci.BlobResource, time.Now().Add(-ago), false)
	}
}

// counts reports whether the registry's word for the blob counts.
func (l *ledger) counts(ref oci.Ref) bool { return !l.vouchedAt(ref, oci.BlobResource).IsZero() }

// want fails the test unless the words for these blobs count, or do not.
func want(t testing.TB, l *ledger, counts bool, refs ...oci.Ref) {
	t.Helper()
	for _, ref := range refs {
		if l.counts(ref) != counts {
			t.Errorf("the grant of %s/%s@%s counts: %v, want %v", ref.Registry, ref.Repository, ref.Digest, !counts, counts)
		}
	}
}

// rewritten writes a ledger to a new file and returns the ledger that is read from it.
func rewritten(t testing.TB, l *ledger, registry string) *ledger {
	t.Helper()
	name, records, ok := decodeFile(encodeFile(registry, l.records(registry)))
	if !ok || name != registry {
		t.Fatalf("the file of %q is read as that of %q, %v", registry, name, ok)
	}
	next := newLedger()
	next.read(name, records)
	return next
}

// A stall makes file calls hang until it is released.
type stall struct {
	mu      sync.Mutex
	op      string        // the kind of call that hangs; "": all
	on      bool          // calls are held up
	reached chan struct{} // holds a token once a call is held up
	release chan struct{}
}

func newStall(op string) *stall {
	return &stall{op: op, reached: make(chan struct{}, 1), release: make(chan struct{})}
}

func (s *stall) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = true
}

func (s *stall) fault(op, _ string) error {
	s.mu.Lock()
	on := s.on && (s.op == "" || s.op == op)
	s.mu.Unlock()
	if on {
		select {
		case s.reached <- struct{}{}:
		default:
		}
		<-s.release
	}
	return nil
}

// names makes n names with a common beginning.
func names(prefix string, n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprint(prefix, i))
	}
	return out
}
