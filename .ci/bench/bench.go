package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Bench is the registry, the servers that have been started, and what they hold.
type Bench struct {
	Setting
	registry *Registry
	servers  map[string]*Server
}

// newBench starts the registry. It ends with ctx.
func newBench(ctx context.Context, s Setting) (*Bench, error) {
	r, err := startRegistry(ctx)
	if err != nil {
		return nil, err
	}
	return &Bench{Setting: s, registry: r, servers: map[string]*Server{}}, nil
}

// server returns a server, which is started the first time.
func (b *Bench) server(ctx context.Context, kind string) (*Server, error) {
	if s := b.servers[kind]; s != nil {
		return s, nil
	}
	s, err := startServer(ctx, b, kind)
	if err == nil {
		b.servers[kind] = s
	}
	return s, err
}

// drop ends a server, and removes what it has.
func (b *Bench) drop(s *Server, kind string) {
	s.stop()
	delete(b.servers, kind)
	for _, s := range s.all() {
		_ = os.RemoveAll(s.folder) // the script removes what is left
	}
}

// stop ends the servers.
func (b *Bench) stop() {
	for _, s := range b.servers {
		s.stop()
	}
}

// memory tells what memory the servers took.
func (b *Bench) memory() string {
	var out strings.Builder
	out.WriteString("\nmemory, idle and in the end: ")
	for i, kind := range slices.Sorted(maps.Keys(b.servers)) {
		if s := b.servers[kind]; s.cmd != nil {
			if i > 0 {
				out.WriteString("; ")
			}
			fmt.Fprintf(&out, "%s %.0f and %.0f MB", kind, s.idle/1e6, s.last/1e6)
		}
	}
	return out.String()
}

// A result is what one server did in one round.
type result struct {
	requests    float64
	bytes       int64
	took, first time.Duration // as a whole; until the first byte, the median; of one for all clients, the last
	cpu         time.Duration // of the server
	memory      float64       // bytes that it then has
	upstream    float64       // what the registry sent, in parts of what was asked for
}

// A column is what is told of results.
type column struct {
	name, format string
	of           func(result) float64
}

var columns = []column{
	{"requests/s", "%.0f", func(r result) float64 { return r.requests / r.took.Seconds() }},
	{"CPU µs/request", "%.1f", func(r result) float64 { return r.cpu.Seconds() * 1e6 / r.requests }},
	{"CPU s/GB", "%.3f", func(r result) float64 { return r.cpu.Seconds() * 1e9 / float64(max(1, r.bytes)) }},
	{"first byte ms", "%.2f", func(r result) float64 { return r.first.Seconds() * 1e3 }},
	{"total ms", "%.1f", func(r result) float64 { return r.took.Seconds() * 1e3 / max(1, r.requests) }},
	{"upstream", "%.2f", func(r result) float64 { return r.upstream }},
	{"memory MB", "%.0f", func(r result) float64 { return r.memory / 1e6 }},
}

// head is the table's.
var head = func() string {
	names := []string{"row", "server"}
	for _, c := range columns {
		names = append(names, c.name)
	}
	return "| " + strings.Join(names, " | ") + " |\n" + strings.Repeat("|---", len(names)) + "|"
}()

// row measures all servers of a row, in turns, and prints a line for each.
func (b *Bench) row(ctx context.Context, r row, out io.Writer) error {
	results := map[string][]result{}
	r.servers = slices.DeleteFunc(slices.Clone(r.servers), missing)
	for round := range b.Rounds {
		asks, err := r.ask(b, round, max(r.count, 1))
		if err != nil {
			return err
		}
		for i := range r.servers {
			kind := r.servers[(i+round)%len(r.servers)] // whoever is first may have a colder or warmer machine
			one, err := b.measure(ctx, kind, r, asks)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			results[kind] = append(results[kind], one)
		}
	}
	for _, kind := range r.servers {
		cells := []string{r.name, kind}
		for _, c := range columns {
			cells = append(cells, c.cell(results[kind], c.base(r.servers, results)))
		}
		fmt.Fprintln(out, "| "+strings.Join(cells, " | ")+" |")
	}
	return nil
}

// measure lets a server do a row's work once.
func (b *Bench) measure(ctx context.Context, kind string, r row, asks []string) (result, error) {
	s, err := b.server(ctx, kind)
	if err != nil {
		return result{}, err
	}
	if r.fresh {
		defer b.drop(s, kind)
	}
	b.registry.behave(r.pace, time.Duration(r.delay)*time.Millisecond)
	if s.cmd == nil {
		r.clients, r.count = 1, 1 // each client has all of a registry's speed, however many there are
	}
	if r.count == 0 && !s.holds[asks[0]] { // all that follow are hits
		if kinds[kind].pushed {
			if err := b.push(ctx, s.Addr, asks[0]); err != nil {
				return result{}, err
			}
		}
		if err := check(ctx, s.Addr, asks[0]); err != nil {
			return result{}, err
		}
		s.holds[asks[0]] = true
	}
	if r.first {
		for _, path := range asks {
			if err := check(ctx, s.Addr, path); err != nil {
				return result{}, err
			}
		}
	}
	if r.count > 0 {
		if err := b.warm(asks, len(s.all())); err != nil {
			return result{}, err
		}
	}
	profiled := make(chan error, 1)
	go func() { profiled <- s.profile(ctx, b.For, filepath.Join(b.Profile, r.name+" "+kind)) }()
	before, sent := s.cpu(), b.registry.sent.Load()
	out, err := r.send(ctx, s.addrs(), asks, b.For)
	out.cpu, out.memory = s.cpu()-before, s.memory()
	out.upstream = float64(b.registry.sent.Load()-sent) / (float64(out.bytes) / out.requests * float64(len(asks)))
	return out, errors.Join(err, <-profiled)
}

// warm writes as much as so many servers will that keep what is asked for, and removes it. The host of a
// virtual machine takes back memory that is free: to get it again would cost a server more than all else
// that it does.
func (b *Bench) warm(asks []string, servers int) error {
	name := filepath.Join(b.Folder, "warm")
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("warming memory: %w", err)
	}
	defer os.Remove(name)
	defer f.Close()
	for range servers {
		for _, path := range asks {
			if err := b.registry.at(path).writeTo(f); err != nil {
				return fmt.Errorf("warming memory: %w", err)
			}
		}
	}
	return nil
}

// base returns the results of the first server that has the column: the registry's CPU time is
// not known.
func (c column) base(servers []string, results map[string][]result) []result {
	for _, kind := range servers {
		if all := results[kind]; c.of(all[0]) > 0 {
			return all
		}
	}
	return results[servers[0]]
}

// cell is the median of a column, and that of its ratios to base.
func (c column) cell(all, base []result) string {
	var values, ratios []float64
	for i, r := range all {
		values = append(values, c.of(r))
		if of := c.of(base[i]); of > 0 {
			ratios = append(ratios, c.of(r)/of)
		}
	}
	s := fmt.Sprintf(c.format, median(values))
	if len(ratios) > 0 && &all[0] != &base[0] {
		s += fmt.Sprintf(" (%.2f)", median(ratios))
	}
	return s
}

// median returns the median of at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
