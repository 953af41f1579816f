package main

import (
	"sync"
	"syscall"
	"time"
)

// starve lets each node run for a share of each period only, until feed is called. Each has its
// own moment: hardly ever do two that talk to each other run at the same time. The nodes are
// stopped and continued by signals. A bound on their group of processes is not the same: under
// one, some kernels let one thread of a process run while another waits for tens of periods.
func (t *Trial) starve(share, period time.Duration) (feed func()) {
	done := make(chan struct{})
	var over sync.WaitGroup
	for i, n := range t.Nodes {
		moment := period * time.Duration(i) / time.Duration(len(t.Nodes))
		over.Go(func() { n.stutter(done, moment, share, period) })
	}
	return func() {
		close(done)
		over.Wait()
	}
}

// stutter stops the node but for a share of each period, which begins at that moment of it.
func (n *Node) stutter(done <-chan struct{}, moment, share, period time.Duration) {
	defer n.signal(syscall.SIGCONT)
	next := time.Now().Add(moment)
	for {
		n.signal(syscall.SIGSTOP)
		select {
		case <-done:
			return
		case <-time.After(time.Until(next)):
		}
		n.signal(syscall.SIGCONT)
		time.Sleep(share)
		for next = next.Add(period); time.Until(next) < period-2*share; {
			next = next.Add(period)
		}
	}
}
