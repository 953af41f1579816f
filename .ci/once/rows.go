package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// least and most are the sizes of ordinary blobs, in bytes.
const (
	least = 64 << 10
	most  = 512 << 10
)

// rows are what can be run. A trial notes its figures; an error means that it could not be run.
var rows = []struct {
	name, what string
	run        func(context.Context, *Trial) error
}{
	{"herd", "all clients want the same new blobs at once", herd},
	{"leave", "zipf over 5 nodes, one of 6 leaves", leave},
	{"join", "nodes join under load", join},
	{"kill", "one node is killed for good", kill},
	{"restart", "all nodes restart, one after the other, under load", restart},
	{"events", "nodes join, leave, die, restart and hang at random", events},
	{"owner", "the owner of a large blob is killed at a random byte", owner},
	{"heir", "the same, and the next owner has no part of it", heir},
	{"starve", "nodes get 20 ms of each 400 ms of a processor", starve},
	{"hot", "all nodes want one large blob at once", hot},
	{"chaos", "nodes die and hang, links are cut or slow, disks full, upstream fails", chaos},
}

// herd sends 16 clients (64) to each of 4 nodes (8) for the same blobs.
func herd(ctx context.Context, t *Trial) error {
	blobs, err := t.blobs(pick(t, 12, 60), least, most)
	if err != nil {
		return err
	}
	if err := t.grow(ctx, pick(t, 4, 8)); err != nil {
		return err
	}
	clients, all := pick(t, 16, 64), make([]*Blob, 0, len(blobs))
	for _, b := range blobs {
		for range clients {
			all = append(all, b)
		}
	}
	t.Each(ctx, t.Nodes, all, clients*len(t.Nodes))
	t.ratio(1)
	return nil
}

// leave pulls zipf-distributed blobs through 5 of 6 nodes, lets one leave, and pulls all
// through the rest.
func leave(ctx context.Context, t *Trial) error {
	blobs, err := t.blobs(pick(t, 300, 2000), least, most)
	if err != nil {
		return err
	}
	if err := t.grow(ctx, 6); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(t.Seed, 4))
	popular := rand.NewZipf(random, 1.1, 8, uint64(len(blobs)-1))
	wanted := make([]*Blob, 2*len(blobs))
	for i := range wanted {
		wanted[i] = blobs[popular.Uint64()]
	}
	t.All(ctx, t.Nodes[:5], wanted, 16)
	err = t.under(ctx, blobs, func() error { return t.Nodes[2].Leave(ctx) })
	if err != nil {
		return err
	}
	t.All(ctx, t.living(), blobs, 16)
	t.ratio(1)
	return nil
}

// under does something while blobs are pulled, half a second longer.
func (t *Trial) under(ctx context.Context, blobs []*Blob, do func() error) error {
	load, stop := context.WithCancel(ctx)
	wait := t.Keep(load, ctx, t.living, blobs, 30)
	err := do()
	pause(ctx, 500*time.Millisecond)
	stop()
	wait()
	return err
}

// join makes 6 nodes (8) of 3 under load, and pulls all through the new ones.
func join(ctx context.Context, t *Trial) error {
	blobs, err := t.blobs(pick(t, 300, 2000), least, most)
	if err != nil {
		return err
	}
	if err := t.grow(ctx, 3); err != nil {
		return err
	}
	t.All(ctx, t.Nodes, blobs, 16)
	err = t.under(ctx, blobs, func() error {
		for _, n := range pick(t, []int{4, 6}, []int{4, 6, 8}) {
			if err := t.grow(ctx, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if t.Long {
		t.Each(ctx, t.Nodes[3:], blobs, 16)
	} else {
		t.All(ctx, t.Nodes[3:], blobs, 16)
	}
	t.ratio(1)
	return nil
}

// kill ends one of 6 nodes for good by SIGKILL, and pulls all through the rest: at once, and once
// the node has lost its place.
func kill(ctx context.Context, t *Trial) error {
	blobs, err := t.blobs(pick(t, 300, 1200), least, most)
	if err != nil {
		return err
	}
	if err := t.grow(ctx, 6); err != nil {
		return err
	}
	t.All(ctx, t.Nodes, blobs, 16)
	t.settle(ctx)
	before, dead := t.Registry.Sent(), t.Nodes[2]
	held := holders(slices.Concat(t.Nodes[:2], t.Nodes[3:]))
	if err := t.under(ctx, blobs, func() error { dead.End(syscall.SIGKILL); return nil }); err != nil {
		return err
	}
	t.All(ctx, t.living(), blobs, 16)
	if err := within(ctx, 30*time.Second, func(ctx context.Context) error { return t.forget(ctx, dead) }); err != nil {
		return err
	}
	t.All(ctx, t.living(), blobs, 16)
	var again, lost int64
	for digest, bytes := range t.Registry.Sent() {
		if extra := bytes - before[digest]; held[digest] > 0 {
			again += extra
		} else {
			lost += extra
		}
	}
	t.note("KiB again that a living node held", float64(again)/1024, 0)
	t.note("KiB again of the dead node alone", float64(lost)/1024, -1)
	t.ratio(1.005)
	return nil
}

// forget makes the cluster forget a dead node, which thus loses its place.
func (t *Trial) forget(ctx context.Context, dead *Node) error {
	out, err := exec.CommandContext(ctx, t.Program, "forget", "-addr", t.Nodes[0].Addr, dead.Name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("forgetting %s: %w: %s", dead.Name, err, out)
	}
	return nil
}

// restart restarts 4 nodes (6) under load, and pulls all again.
func restart(ctx context.Context, t *Trial) error {
	blobs, err := t.blobs(pick(t, 300, 1200), least, most)
	if err != nil {
		return err
	}
	if err := t.grow(ctx, pick(t, 4, 6)); err != nil {
		return err
	}
	t.All(ctx, t.Nodes, blobs[:len(blobs)/2], 16)
	err = t.under(ctx, blobs, func() error {
		for _, n := range t.Nodes {
			n.End(syscall.SIGTERM)
			if err := n.Start(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.All(ctx, t.Nodes, blobs, 16)
	t.ratio(1)
	return nil
}

// owner kills owners of large blobs while all others pull them.
func owner(ctx context.Context, t *Trial) error { return t.owners(ctx, 3) }

// heir does so while one of the others does not, which may be the next owner.
func heir(ctx context.Context, t *Trial) error { return t.owners(ctx, 2) }

// owners kills the owner of a large blob 3 times (20), at a random byte, while so many of the 3
// others pull it.
func (t *Trial) owners(ctx context.Context, pullers int) error {
	const size, pace = 12 << 20, 8 << 20
	blobs, err := t.blobs(pick(t, 3, 20), size, size)
	if err != nil {
		return err
	}
	if err := t.grow(ctx, 4); err != nil {
		return err
	}
	t.Registry.Pace.Store(pace)
	worst := int64(0)
	for _, b := range blobs {
		more, err := t.killOwner(ctx, b, pullers)
		if err != nil {
			return err
		}
		worst = max(worst, more)
	}
	t.note("KiB more a kill", float64(worst)/1024, 512)
	t.ratio(-1)
	return nil
}

// killOwner kills the owner of a blob while so many others pull it, and starts it again. It returns
// by how much more than the blob's size came from upstream.
func (t *Trial) killOwner(ctx context.Context, b *Blob, pullers int) (more int64, err error) {
	name, err := t.Nodes[0].Owner(ctx, b)
	if err != nil {
		return 0, err
	}
	victim := t.named(name)
	if victim == nil {
		return 0, fmt.Errorf("the owner %q is none of ours", name)
	}
	var others []*Node
	for _, n := range t.Nodes {
		if n != victim {
			others = append(others, n)
		}
	}
	at := t.Random.Int64N(b.Size * 9 / 10)
	pulled := make(chan struct{})
	go func() {
		defer close(pulled)
		t.Each(ctx, others[:pullers], []*Blob{b}, pullers)
	}()
	err = within(ctx, 30*time.Second, func(context.Context) error {
		if t.Registry.Sent()[b.Digest] < at {
			return errLate
		}
		return nil
	})
	victim.End(syscall.SIGKILL)
	<-pulled
	if err != nil {
		return 0, err
	}
	more = t.Registry.Sent()[b.Digest] - b.Size
	log.Printf("%s, with %d others, killed at %d KiB: %d KiB more", name, pullers, at>>10, more>>10)
	if err := victim.Start(ctx); err != nil {
		return 0, err
	}
	return more, t.whole(ctx)
}

// starve gives each of 4 nodes 20 ms of each 400 ms of a processor, more where it is slow, and pulls
// new blobs through all of them at once.
func starve(ctx context.Context, t *Trial) error {
	blobs, err := t.blobs(pick(t, 90, 600), least, 2*least)
	if err != nil {
		return err
	}
	if err := t.grow(ctx, 4); err != nil {
		return err
	}
	feed := t.starve(ctx)
	defer feed()
	t.Each(ctx, t.Nodes, blobs, 32)
	t.ratio(1)
	return nil
}

// hot pulls one blob of 64 MiB through all of 6 nodes at once, one that the cluster has not, and
// one that its owner has. In the long form there are 8 nodes, then 24.
func hot(ctx context.Context, t *Trial) error {
	blobs, err := t.blobs(pick(t, 2, 4), 64<<20, 64<<20)
	if err != nil {
		return err
	}
	for i, nodes := range pick(t, []int{6}, []int{8, 24}) {
		if err := t.grow(ctx, nodes); err != nil {
			return err
		}
		t.Registry.Pace.Store(32 << 20)
		if err := t.relayed(ctx, "new", blobs[2*i], false); err != nil {
			return err
		}
		t.Registry.Pace.Store(0)
		if err := t.relayed(ctx, "held", blobs[2*i+1], true); err != nil {
			return err
		}
	}
	t.ratio(1)
	return nil
}

// relayed pulls a blob through all nodes at once, and notes how often they sent it.
func (t *Trial) relayed(ctx context.Context, what string, b *Blob, held bool) error {
	name, err := t.Nodes[0].Owner(ctx, b)
	if err != nil {
		return err
	}
	if held {
		t.Pull(ctx, []*Node{t.named(name)}, b)
	}
	before, err := t.toPeers(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	t.Each(ctx, t.Nodes, []*Blob{b}, len(t.Nodes))
	took := time.Since(began).Seconds()
	after, err := t.toPeers(ctx)
	if err != nil {
		return err
	}
	owner, most := 0.0, 0.0
	for i, n := range t.Nodes {
		times := float64(after[i]-before[i]) / float64(b.Size)
		if n.Name == name {
			owner = times
		}
		most = max(most, times)
	}
	t.note(fmt.Sprintf("%s, %d nodes: owner sends", what, len(t.Nodes)), owner, 2.1)
	t.note("any", most, 3)
	t.note("seconds", took, -1)
	return nil
}

// toPeers returns how many bytes each node has sent to others.
func (t *Trial) toPeers(ctx context.Context) (bytes []int64, err error) {
	for _, n := range t.Nodes {
		b, err := n.ToPeers(ctx)
		if err != nil {
			return nil, err
		}
		bytes = append(bytes, b)
	}
	return bytes, nil
}
