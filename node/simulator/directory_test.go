package simulator

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/node/cluster"
	"oci-proxy/ring"
	"oci-proxy/transfer/testkit"
)

// In a cluster of more members than are asked for each blob, what any one of them holds does
// not come from the registry again: neither before all have told what they hold, when all are
// asked, nor afterwards, when those are that said so.
func TestSimDirectory(t *testing.T) {
	testkit.SkipShort(t)
	b := newTable(t, "nodes", "blobs", "requests for a blob, before all is told", "afterwards", "messages", "entries of a node", "bytes of a node", "bytes from the registry")
	for _, n := range sizes(t, 12) {
		synctest.Test(t, func(t *testing.T) {
			w, err := New(Config{Seed: seed(t), Nodes: n, Blobs: 32, Dir: t.TempDir(), Oracle: n > gossiping, Many: n / 3})
			if err != nil {
				t.Error(err)
			}
			before := strays(t, w, 0, w.cfg.Blobs/2, 0)
			after := strays(t, w, w.cfg.Blobs/2, w.cfg.Blobs, 5*time.Second)
			messages := TrafficOf(w).Asks["directory"]
			entries, bytes := 0, 0
			for _, h := range w.Living() {
				f := cluster.DirectoryOf(h.node.Load().cluster)
				entries, bytes = max(entries, f.Entries), max(bytes, f.Bytes)
				if f.Members != n-1 {
					t.Errorf("%d members have told node %d all, want %d", f.Members, h.i, n-1)
				}
			}
			a := w.registry.Amplification()
			if _, failed := w.Failed(); failed != nil || a.Sent > 0 {
				t.Errorf("the registry sent %d bytes of what one node holds; pulls failed: %v", a.Sent, failed)
			}
			b.row(n, w.cfg.Blobs, before, after, messages, entries, bytes, a.Sent)
			if err := w.End(); err != nil {
				t.Error(err)
			}
		})
	}
}

// strays puts each of those blobs on one node that does not own it, and after a while pulls
// it by two others. It returns how many requests for blobs nodes made for each of them.
func strays(t *testing.T, w *World, from, to int, while time.Duration) float64 {
	t.Helper()
	began := TrafficOf(w).Asks["blobs"]
	others := map[int][]*Host{}
	for blob := from; blob < to; blob++ {
		owners, _ := w.Living()[0].view().Ring.Owners(w.registry.blobs[blob].ref.Digest.String())
		others[blob] = slices.DeleteFunc(w.Living(), func(h *Host) bool {
			return slices.ContainsFunc(owners[:], func(o ring.Member) bool { return o.ID == h.id })
		})
		if err := others[blob][blob%len(others[blob])].put(blob); err != nil {
			t.Error(err)
		}
	}
	<-time.After(while)
	for blob, by := range others {
		w.pull(by[(blob+1)%len(by)], blob)
		w.pull(by[(blob+7)%len(by)], blob)
	}
	w.Await()
	return float64(TrafficOf(w).Asks["blobs"]-began) / float64(to-from)
}

// put puts a blob into the node's shard.
func (h *Host) put(blob int) error {
	b := h.world.registry.blobs[blob]
	in, err := h.node.Load().shard.Ingest(context.Background(), b.ref.Digest, registryHost, "")
	if err != nil {
		return err
	}
	in.SetSize(int64(len(b.content)))
	_, err = in.Write(b.content)
	return errors.Join(err, in.Commit())
}
