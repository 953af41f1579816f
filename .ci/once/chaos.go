package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

// events lets 10 things (40) happen to 6 nodes (10), 2 to 8 s one after the other, at 20 pulls a
// second. Then the rings must be one within 10 s.
func events(ctx context.Context, t *Trial) error {
	blobs, err := t.blobs(pick(t, 300, 1000), least, most)
	if err != nil {
		return err
	}
	if err := t.grow(ctx, pick(t, 6, 10)); err != nil {
		return err
	}
	t.All(ctx, t.Nodes, blobs, 16)
	t.settle(ctx)
	load, stop := context.WithCancel(ctx)
	defer stop()
	wait := t.Keep(load, ctx, t.living, blobs, 20)
	var deck []int // so that each kind comes about equally often
	lost, slowest, early := map[string]bool{}, [kinds]float64{}, 0
	for range pick(t, 10, 40) {
		if len(deck) == 0 {
			deck = t.Random.Perm(kinds)
		}
		var what int
		if what, err = t.event(ctx, deck[0]); err != nil {
			break
		}
		deck = deck[1:]
		t.loss(blobs, lost)
		took, paired := t.spaced(ctx)
		if slowest[what] = max(slowest[what], took.Seconds()); !paired {
			early++
		}
	}
	last := time.Now()
	late := within(ctx, pick(t, 12*time.Second, 3*time.Minute), func(ctx context.Context) error { return agree(ctx, t.living()) })
	t.note("seconds until one ring", time.Since(last).Seconds(), 10)
	stop()
	wait()
	if err != nil {
		return err
	}
	if late != nil {
		log.Print(late)
	}
	t.All(ctx, t.living(), blobs, 16)
	again := int64(0)
	for _, b := range blobs {
		if lost[b.Digest] {
			again += t.Registry.Sent()[b.Digest] - b.Size
		}
	}
	t.note("seconds until two copies after a kill", slowest[dies], -1)
	t.note("after a leave", slowest[leaves], -1)
	t.note("after anything else", max(slowest[joins], slowest[restarts], slowest[hangs]), -1)
	t.note("events that came before that", float64(early), -1)
	t.note("KiB again that no living node held", float64(again)/1024, -1)
	t.ratio(1.001)
	return nil
}

// loss notes blobs that now lie on no living node's disk: those whose last holder was just killed.
func (t *Trial) loss(blobs []*Blob, lost map[string]bool) {
	held := holders(t.living())
	for _, b := range blobs {
		lost[b.Digest] = lost[b.Digest] || held[b.Digest] == 0
	}
}

// spaced waits 2 to 8 s, until the next event. It returns how long it took until all blobs that
// living nodes hold had two copies, and whether that came to pass.
func (t *Trial) spaced(ctx context.Context) (took time.Duration, paired bool) {
	began := time.Now()
	next := began.Add(2*time.Second + time.Duration(t.Random.Int64N(int64(6*time.Second))))
	for ctx.Err() == nil && time.Now().Before(next) {
		if !paired {
			paired, took = t.single() == 0, time.Since(began)
		}
		pause(ctx, min(pick(t, 250*time.Millisecond, time.Second), time.Until(next))) // a look reads all folders
	}
	return took, paired
}

// single returns how many blobs lie on one living node alone.
func (t *Trial) single() (blobs int) {
	for _, n := range holders(t.living()) {
		if n == 1 {
			blobs++
		}
	}
	return blobs
}

// event lets one of five things happen to a random node, and returns which.
func (t *Trial) event(ctx context.Context, what int) (happened int, err error) {
	living, usual := t.living(), pick(t, 6, 10)
	victim := living[t.Random.IntN(len(living))]
	switch { // so that the cluster stays about as large as it was
	case what == joins && len(living) > usual+1:
		what = leaves
	case what != joins && len(living) < usual-1:
		what = joins
	}
	if what == joins {
		if victim, err = t.absent(); err != nil {
			return what, err
		}
	}
	log.Printf("%s of %d %s", victim.Name, len(living), [...]string{"joins", "leaves", "is killed", "restarts", "hangs"}[what])
	switch what {
	case joins:
		err = victim.Start(ctx)
	case leaves:
		err = victim.Leave(ctx)
	case dies:
		victim.End(syscall.SIGKILL)
	case restarts:
		victim.End(syscall.SIGTERM)
		err = victim.Start(ctx)
	case hangs:
		victim.Freeze(ctx, time.Duration(1000+t.Random.IntN(2000))*time.Millisecond)
	}
	return what, err
}

// What happens to nodes.
const (
	joins = iota // for the first time, or again
	leaves
	dies
	restarts
	hangs
	kinds // how many there are
)

// absent returns a node that is not up: one that was, or a new one.
func (t *Trial) absent() (*Node, error) {
	var absent []*Node
	for _, n := range t.Nodes {
		if _, up := n.calm(); !up {
			absent = append(absent, n)
		}
	}
	if len(absent) == 0 || t.Random.IntN(2) == 0 {
		return t.add()
	}
	return absent[t.Random.IntN(len(absent))], nil
}

// chaos makes everything go wrong for a minute (10), at 50 pulls a second and more: at each moment
// two of 6 nodes are ill at most. The first has a full disk, and upstream fails often.
func chaos(ctx context.Context, t *Trial) error {
	blobs, err := t.blobs(pick(t, 1200, 8000), 16<<10, 128<<10)
	if err != nil {
		return err
	}
	if err := t.grow(ctx, 6); err != nil {
		return err
	}
	t.Registry.Fails.Store(80)
	load, stop := context.WithTimeout(ctx, pick(t, time.Minute, 10*time.Minute))
	defer stop()
	wait := t.Keep(load, ctx, t.living, blobs, 60)
	began := time.Now()
	var group sync.WaitGroup
	errs := make(chan error, 2)
	for lane := range 2 {
		random := rand.New(rand.NewPCG(t.Seed, uint64(5+lane)))
		group.Go(func() { errs <- t.ills(load, ctx, lane*3, random) })
	}
	group.Wait()
	t.Registry.Fails.Store(0)
	wait()
	log.Print("the load is over")
	for range 2 {
		if err := <-errs; err != nil {
			return err
		}
	}
	t.Load.mu.Lock()
	t.note("pulls a second", float64(t.pulls)/time.Since(began).Seconds(), -1)
	t.Load.mu.Unlock()
	t.ratio(-1)
	return nil
}

// ills makes one of three nodes ill after the other, from the first on, until ctx ends. What it
// began it ends.
func (t *Trial) ills(ctx, whole context.Context, first int, random *rand.Rand) error {
	names := []string{"is killed", "hangs", "is slow", "and another are cut", "and the registry are cut"}
	kinds := len(names)
	if t.Spaces == "" {
		kinds = 2
	}
	for ctx.Err() == nil {
		i, ill := first+random.IntN(3), random.IntN(kinds)
		n, other, lasts := t.Nodes[i], random.IntN(len(t.Nodes)-1), time.Duration(1000+random.IntN(3000))*time.Millisecond
		log.Printf("%s %s for %s", n.Name, names[ill], lasts)
		var err error
		switch ill {
		case 0:
			n.End(syscall.SIGKILL)
			pause(whole, lasts)
			err = n.Start(whole)
		case 1:
			n.Freeze(whole, lasts)
		case 2:
			err = t.slow(whole, i+1, lasts)
		case 3:
			peer := t.address((i+1+other)%len(t.Nodes) + 1)
			err = t.cut(whole, i+1, lasts, []string{"INPUT", "-s", peer}, []string{"OUTPUT", "-d", peer})
		case 4:
			host, port, _ := net.SplitHostPort(t.Registry.Addr) // it has both
			err = t.cut(whole, i+1, lasts, []string{"OUTPUT", "-p", "tcp", "-d", host, "--dport", port})
		}
		if err != nil {
			return err
		}
		pause(ctx, time.Second)
	}
	return nil
}

// at runs a command on the host of node n.
func (t *Trial) at(n int, command ...string) error {
	command = t.inSpace(n, command...)
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil { //nolint:noctx // what was begun has to be ended
		return fmt.Errorf("%v: %w: %s", command, err, out)
	}
	return nil
}

// cut lets no packet pass at node n that one of these rules is for, for so long.
func (t *Trial) cut(ctx context.Context, n int, d time.Duration, rules ...[]string) error {
	for _, do := range []string{"-A", "-D"} {
		for _, rule := range rules {
			if err := t.at(n, slices.Concat([]string{"iptables", "-w", do}, rule, []string{"-j", "DROP"})...); err != nil {
				return err
			}
		}
		if do == "-A" {
			pause(ctx, d)
		}
	}
	return nil
}

// slow lets node n send 2 MB a second for so long.
func (t *Trial) slow(ctx context.Context, n int, d time.Duration) error {
	if err := t.at(n, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "16mbit", "burst", "64k", "latency", "1s"); err != nil {
		return err
	}
	pause(ctx, d)
	return t.at(n, "tc", "qdisc", "del", "dev", "eth0", "root")
}
