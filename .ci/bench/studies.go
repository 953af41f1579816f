package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A study is measured once, and has columns of its own. It is not among what is measured when no
// name is given, since it takes long.
type study struct {
	name, what string
	head       string
	of         func(ctx context.Context, b *Bench, name string, out io.Writer) error
}

// Heads of the studies' tables.
const (
	startHead = "| study | server | puts/s | CPU µs/put | memory MB after | stopped ms | first hit ms | all known ms | memory MB then | B a blob |\n|---|---|---|---|---|---|---|---|---|---|"
	idleHead  = "| study | nodes | CPU of a node, % of a core | memory MB of a node |\n|---|---|---|---|"
)

// studies are all that there are.
var studies = []study{
	{"start-100k", "100,000 blobs of 4 KiB are put; 2 s later the server stops and starts", startHead, starts(100_000)},
	{"start-1m", "the same with 1,000,000 (some 8 GB for each server)", startHead, starts(1_000_000)},
	{"idle-10", "a mesh of 10 nodes that nobody asks", idleHead, idles(10)},
	{"idle-100", "the same of 100 (some 4 GB of memory)", idleHead, idles(100)},
}

// starts puts that many blobs, and starts the server anew.
func starts(blobs int) func(context.Context, *Bench, string, io.Writer) error {
	return func(ctx context.Context, b *Bench, name string, out io.Writer) error {
		var errs []error
		for _, kind := range []string{"nginx cache", "node"} {
			s, err := b.server(ctx, kind)
			if err == nil {
				err = b.start(ctx, s, kind, name, blobs, out)
				b.drop(b.servers[kind], kind)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
}

// start does that for one server, and prints a line.
func (b *Bench) start(ctx context.Context, s *Server, kind, name string, blobs int, out io.Writer) error {
	const step = 20_000 // so that no more paths are made at once
	b.registry.behave(0, 0)
	empty, before, took, known := s.memory(), s.cpu(), time.Duration(0), ""
	for put := 0; put < blobs; put += step {
		l := load{clients: 32, count: min(step, blobs-put)}
		asks, err := fresh(4<<10)(b, 0, l.count)
		if err != nil {
			return err
		}
		r, err := l.send(ctx, s.addrs(), asks, 0)
		if err != nil {
			return err
		}
		took += r.took
		known = asks[0]
	}
	cpu, after := s.cpu()-before, s.memory()
	pause(ctx, 2*time.Second) // a node that was asked a moment ago waits for what its client may ask for next
	began := time.Now()
	s.stop()
	stopped := time.Since(began)
	again, err := kinds[kind].launch(ctx, b, kind, "")
	if err != nil {
		return err
	}
	b.servers[kind] = again
	began = time.Now()
	if err := again.await(ctx, func() bool { return check(ctx, again.Addr, known) == nil }); err != nil {
		return err
	}
	hit := time.Since(began)
	if err := again.await(ctx, func() bool { return kind != "node" || again.held(ctx) == blobs }); err != nil {
		return err
	}
	all, then := time.Since(began), again.memory()
	fmt.Fprintf(out, "| %s | %s | %.0f | %.1f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f |\n", name, kind,
		float64(blobs)/took.Seconds(), cpu.Seconds()*1e6/float64(blobs), after/1e6, stopped.Seconds()*1e3, hit.Seconds()*1e3, all.Seconds()*1e3, then/1e6, (then-empty)/float64(blobs))
	return nil
}

// held is how many blobs a node says that it holds, -1 if it does not say.
func (s *Server) held(ctx context.Context) int {
	text, err := get(ctx, "http://"+s.Addr+"/_/stats")
	var stats map[string]struct{ Items int } // by registry
	if err != nil || json.Unmarshal([]byte(text), &stats) != nil {
		return -1
	}
	sum := 0
	for _, registry := range stats {
		sum += registry.Items
	}
	return sum
}

// await asks again and again until there is what is waited for, or a minute is over.
func (s *Server) await(ctx context.Context, there func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !there() {
		if pause(ctx, time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("waiting for %s: %w", s.folder, ctx.Err())
		}
	}
	return nil
}

// idles starts a mesh of that many nodes, and leaves it alone.
func idles(nodes int) func(context.Context, *Bench, string, io.Writer) error {
	return func(ctx context.Context, b *Bench, name string, out io.Writer) error {
		k := cluster("true")
		k.nodes = nodes
		s, err := k.mesh(ctx, b, name)
		if err != nil {
			return err
		}
		defer s.stop()
		pause(ctx, time.Minute) // until what follows a start is over
		before, began := s.cpu(), time.Now()
		pause(ctx, 30*time.Second)
		used, memory := (s.cpu()-before).Seconds()/time.Since(began).Seconds(), s.memory()
		fmt.Fprintf(out, "| %s | %d | %.2f | %.0f |\n", name, nodes, 100*used/float64(nodes), memory/1e6/float64(nodes))
		return ctx.Err()
	}
}

// chosen reports whether one of names is the study's, or the beginning of it and no other one's.
func (s study) chosen(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		other := slices.ContainsFunc(studies, func(other study) bool { return other.name == name && name != s.name })
		return strings.HasPrefix(s.name, name) && !other
	})
}

// studied measures the studies that names choose.
func (b *Bench) studied(ctx context.Context, names []string, out io.Writer) (failed []error) {
	head := ""
	for _, s := range studies {
		if !s.chosen(names) {
			continue
		}
		if s.head != head {
			head = s.head
			fmt.Fprintln(out, "\n"+head)
		}
		if err := s.of(ctx, b, s.name, out); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return failed
}

// end asks a process to end, if it has not.
func (s *Server) end() {
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
}
