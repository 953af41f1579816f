package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// share of each period is what starved nodes get of a processor.
	share, period = 20 * time.Millisecond, 400 * time.Millisecond
	// answers is how many questions a node answers in that share, at least, where nothing else wants
	// the processor.
	answers = 100
	// mostShare is what they get where the machine is slower than that.
	mostShare = 5 * share
)

// starve lets each node run for a share of each period only, until feed is called. Each has its
// own moment: hardly ever do two that talk to each other run at the same time. What a share is
// worth differs: a processor that has idled, or is another's most of the time, does a fraction
// of the work. So the share is longer where a node answers less in it than it must.
func (t *Trial) starve(ctx context.Context) (feed func()) {
	feed = t.stutter(share)
	defer feed()
	got := max(t.answers(ctx, t.Nodes[0]), 1)
	fit := min(max(share*answers/time.Duration(got), share), mostShare)
	t.note("answers in "+share.String(), float64(got), -1)
	t.note("milliseconds of each "+period.String(), float64(fit.Milliseconds()), -1)
	feed()
	return t.stutter(fit)
}

// answers returns how often a node answers in a period.
func (t *Trial) answers(ctx context.Context, n *Node) int {
	const periods, askers = 8, 4
	var got atomic.Int64
	ctx, end := context.WithTimeout(ctx, periods*period)
	defer end()
	var all sync.WaitGroup
	for range askers {
		all.Go(func() {
			for ctx.Err() == nil {
				if n.health(ctx) == nil {
					got.Add(1)
				}
			}
		})
	}
	all.Wait()
	return int(got.Load()) / periods
}

// health asks whether the node lives, over a connection of its own.
func (n *Node) health(ctx context.Context) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL("/_/health"), http.NoBody)
	if err != nil {
		return fmt.Errorf("asking %s: %w", n.Name, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close() // only read
	return err
}

// stutter stops all nodes but for a share of each period, until feed is called, which may be again.
func (t *Trial) stutter(share time.Duration) (feed func()) {
	done := make(chan struct{})
	var over sync.WaitGroup
	for i, n := range t.Nodes {
		moment := period * time.Duration(i) / time.Duration(len(t.Nodes))
		over.Go(func() { n.stutter(done, moment, share) })
	}
	return sync.OnceFunc(func() {
		close(done)
		over.Wait()
	})
}

// stutter stops the node but for a share of each period, which begins at that moment of it.
func (n *Node) stutter(done <-chan struct{}, moment, share time.Duration) {
	defer n.signal(syscall.SIGCONT)
	for next := time.Now().Add(moment); ; {
		n.signal(syscall.SIGSTOP)
		select {
		case <-done:
			return
		case <-time.After(time.Until(next)):
		}
		n.signal(syscall.SIGCONT)
		time.Sleep(share)
		for next = next.Add(period); time.Until(next) < period-2*share; { // it woke late
			next = next.Add(period)
		}
	}
}
