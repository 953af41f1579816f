package grants

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// A disk that hangs delays neither questions nor grants, and a refusal counts at once.
// Only Revoke waits for the disk, for a second at most.
func TestAHungDiskHoldsUpNobody(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"", "create", "write", "close", "rename"} {
		t.Run("every call "+op, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { hungDisk(t, dir, op) })
		})
	}
}

func hungDisk(t *testing.T, dir, op string) {
	st := newStall(op)
	s := OpenShard(dir, cache.Options{Fault: st.fault})
	g := New(Config{Life: wait.NewLife(), Within: time.Minute, Log: slog.New(slog.DiscardHandler)})
	defer g.Close()
	content := []byte("{}")
	held := oci.Ref{Registry: private, Repository: "team/app", Digest: digest.FromBytes(content)}
	q := request(s, held)
	q.StaleIfError = time.Hour
	if _, err := s.Put(t.Context(), held.Digest, private, "", content); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	st.hold()
	began := time.Now()
	for _, name := range names("x", 100) {
		other := q.For(blob("team/"+name, name))
		g.Grant(other, oci.BlobResource, began)
		g.Delivered(other, oci.BlobResource, began)
		s.MarkPrivate(name, false)
	}
	g.Grant(q, oci.BlobResource, began)
	p, err := g.Allowed(t.Context(), q, oci.BlobResource)
	if err != nil || p == nil || g.Known(q, oci.BlobResource, time.Hour) == nil || !g.Vouched(q, oci.BlobResource) || !s.MarkedPrivate("x1") {
		t.Errorf("while the disk hangs: %v, %v", p, err)
	}
	if d := time.Since(began); d != 0 {
		t.Errorf("asking and granting took %v", d)
	}
	g.Revoke(q, oci.BlobResource, &oci.Error{Kind: oci.Denied, Status: 403, By: oci.Registry, Relayed: true})
	if d := time.Since(began); d > noted {
		t.Errorf("Revoke took %v", d)
	}
	if g.Known(q, oci.BlobResource, time.Hour) != nil {
		t.Error("the refusal does not count while the disk hangs")
	}
	select {
	case <-st.reached:
	default:
		t.Error("the disk was not asked")
	}
	close(st.release)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	later := OpenShard(dir, cache.Options{})
	want(t, later.ledger, false, held)
	want(t, later.ledger, true, blob("team/x7", "x7"))
	if err := later.Close(); err != nil {
		t.Error(err)
	}
}
