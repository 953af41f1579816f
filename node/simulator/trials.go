package simulator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"oci-proxy/node/membership/memnet"
)

// What is asked of a cluster beside what happens to it (events.go).

// ownerOf is the node that the ring gives a blob to, nil if it does not run.
func ownerOf(w *World, blob int) *Host {
	living := w.Living()
	id := living[0].view().Ring.Owner(w.registry.blobs[blob].ref.Digest.String()).ID
	for _, h := range living {
		if h.id == id {
			return h
		}
	}
	return nil
}

// KillOwners makes all nodes pull a new blob, and kills its owner at a random byte of it; so
// often. Each comes back. It returns how many bytes a kill cost at most, in the World's
// own bytes: what lies in sockets and buffers has no scale.
func KillOwners(w *World, kills int) (most int64, err error) {
	draw := rand.New(rand.NewPCG(w.cfg.Seed, 5))
	for blob := range kills {
		owner := ownerOf(w, blob)
		if owner == nil {
			return most, fmt.Errorf("the owner of blob %d does not run", blob)
		}
		before := w.registry.Amplification()
		for _, h := range w.Living() {
			w.pull(h, blob)
		}
		takes := float64(len(w.registry.blobs[blob].content)) * w.cfg.scale() / registryRate
		<-time.After(registryTime + time.Duration(draw.Float64()*takes*float64(time.Second)))
		err = errors.Join(err, owner.kill())
		w.Await()
		after := w.registry.Amplification()
		most = max(most, after.Sent-before.Sent-(after.Unique-before.Unique))
		err = errors.Join(err, owner.start(), w.AwaitWhole(4*time.Minute))
	}
	return most, err
}

// Hot makes a client of each node pull a blob at once. Its owner holds it already, or
// nobody does. It returns how often the owner sent it to others, and how often the one
// did that sent most beside the owner.
func Hot(w *World, blob int, held bool) (owner, other float64) {
	first := ownerOf(w, blob)
	if held {
		w.pull(first, blob)
		w.Await()
	}
	before := map[*Host]int64{}
	for _, h := range w.Living() {
		before[h] = h.node.Load().given()
	}
	for _, h := range w.Living() {
		w.pull(h, blob)
	}
	w.Await()
	for h, was := range before {
		times := float64(h.node.Load().given()-was) / float64(len(w.registry.blobs[blob].content))
		if h == first {
			owner = times
		} else {
			other = max(other, times)
		}
	}
	return owner, other
}

// Starve makes clients pull new blobs while no node can send or read but for 20 ms of each
// 400 ms.
func Starve(w *World) error {
	w.net.Starve(memnet.Turn{On: 20 * time.Millisecond, Each: 400 * time.Millisecond})
	err := w.under(func() error {
		<-time.After(20 * time.Second)
		return nil
	})
	w.All(w.ready())
	w.net.Starve(memnet.Turn{})
	return err
}

// Hits pulls popular blobs one after the other, each by any node. It returns for what part
// of the last three quarters of these pulls the registry was not asked.
func Hits(w *World, pulls int) float64 {
	draw := rand.New(rand.NewPCG(w.cfg.Seed, 6))
	began := int64(0)
	for i := range pulls {
		if i == pulls/4 { // the disks are full by then
			began = w.registry.opened.Load()
		}
		w.pull(w.pick(w.ready(), loading+i), popular(w, draw))
		w.Await()
	}
	return 1 - float64(w.registry.opened.Load()-began)/float64(pulls-pulls/4)
}
