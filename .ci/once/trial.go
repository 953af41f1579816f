package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Setting is what the script gives to a trial.
type Setting struct {
	Program string // oci-proxy
	Folder  string // for everything that is written
	Spaces  string // what the nodes' network namespaces begin with; "": all is on loopback
	Small   string // a folder on a disk of a few megabytes; "": there is none
	Long    bool
	Seed    uint64
	Ports   [3]int // of the nodes: clients, gossip, peers
}

// A Trial is one row with its registry, its nodes and its load.
type Trial struct {
	Setting
	*Load
	Registry *Registry
	Random   *rand.Rand

	mu      sync.Mutex
	Nodes   []*Node // also those that have ended; only add changes it
	figures []figure
}

// A figure is what was measured, and what it may be at most.
type figure struct {
	name        string
	value, most float64 // most < 0: anything
}

// good reports whether the figure is what it must be, in three digits after the point.
func (f figure) good() bool { return f.most < 0 || math.Round(f.value*1000) <= math.Round(f.most*1000) }

// String implements fmt.Stringer.
func (f figure) String() string {
	s := fmt.Sprintf("%s %s", f.name, short(f.value))
	switch {
	case f.most < 0:
		return s
	case f.good():
		return s + " (≤ " + short(f.most) + ")"
	}
	return s + " (NOT ≤ " + short(f.most) + ")"
}

// short prints a whole number as such, and others with three digits after the point.
func short(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) >= 10 || v == 0 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// newTrial starts a registry. It ends with ctx.
func newTrial(ctx context.Context, s Setting) (*Trial, error) {
	host := "127.0.0.1"
	if s.Spaces != "" {
		host = "10.97.0.1"
	}
	registry, err := startRegistry(ctx, host+":0")
	if err != nil {
		return nil, err
	}
	return &Trial{Setting: s, Load: newLoad(s.Seed), Registry: registry, Random: rand.New(rand.NewPCG(s.Seed, 3))}, nil
}

// pick returns short, or long in the long form.
func pick[T any](t *Trial, short, long T) T {
	if t.Long {
		return long
	}
	return short
}

// blobs makes blobs that the registry has.
func (t *Trial) blobs(n int, least, most int64) ([]*Blob, error) {
	blobs, err := newBlobs(t.Seed+uint64(most), n, least, most)
	if err == nil {
		t.Registry.Add(blobs...)
	}
	return blobs, err
}

// note adds a figure that may be most at most.
func (t *Trial) note(name string, value, most float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.figures = append(t.figures, figure{name, value, most})
}

// sent returns how many bytes the registry sent.
func (t *Trial) sent() (bytes int64) {
	for _, n := range t.Registry.Sent() {
		bytes += n
	}
	return bytes
}

// ratio notes upstream bytes ÷ unique bytes.
func (t *Trial) ratio(most float64) {
	t.note("upstream ÷ unique", float64(t.sent())/float64(max(1, t.unique())), most)
}

// outcome notes what the load saw, and returns the figures, and whether all are good.
func (t *Trial) outcome() (line string, good bool) {
	ended := 0
	for _, n := range t.Nodes {
		n.mu.Lock()
		ended += n.ended
		n.mu.Unlock()
	}
	t.Load.mu.Lock()
	defer t.Load.mu.Unlock()
	t.note("failed pulls", float64(t.failed), 0)
	t.note("wrong", float64(t.wrong), 0)
	if ended > 0 {
		t.note("nodes that ended by themselves", float64(ended), 0)
	}
	good = true
	parts := make([]string, 0, len(t.figures)+1)
	for _, f := range t.figures {
		good = good && f.good()
		parts = append(parts, f.String())
	}
	parts = append(parts, fmt.Sprintf("%d pulls, %d moved, slowest %.1f s", t.pulls, t.moved, t.slowest.Seconds()))
	if t.skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d left out", t.skipped))
	}
	return strings.Join(parts, "; "), good
}

// address returns the address of node n.
func (t *Trial) address(n int) string {
	if t.Spaces == "" {
		return fmt.Sprintf("127.9.1.%d", n)
	}
	return fmt.Sprintf("10.97.1.%d", n)
}

// inSpace returns a command that runs where node n does.
func (t *Trial) inSpace(n int, command ...string) []string {
	if t.Spaces == "" {
		return command
	}
	return append([]string{"ip", "netns", "exec", fmt.Sprintf("%s-%d", t.Spaces, n)}, command...)
}

// seeds returns the gossip addresses of three nodes that are up, or else of the first three.
func (t *Trial) seeds() string {
	hosts := []string{t.address(1), t.address(2), t.address(3)}
	if living := t.living(); len(living) >= len(hosts) {
		for i := range hosts {
			hosts[i], _, _ = net.SplitHostPort(living[i].Addr) // it has both
		}
	}
	for i, host := range hosts {
		hosts[i] = fmt.Sprintf("%q", net.JoinHostPort(host, strconv.Itoa(t.Ports[1])))
	}
	return strings.Join(hosts, ", ")
}

// add makes the next node, and does not start it. Only the goroutine of the row calls it.
func (t *Trial) add() (*Node, error) {
	n := len(t.Nodes) + 1
	name, host := fmt.Sprintf("node-%d", n), t.address(n)
	folder := filepath.Join(t.Folder, name)
	cache := filepath.Join(folder, "cache")
	if n == 1 && t.Small != "" {
		cache = filepath.Join(t.Small, "cache")
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("making a node: %w", err)
	}
	config := fmt.Sprintf(`port: %d
address: %s
defaults: {cache_dir: %s, cache_max_size: 8g}
registries:
  "%s": {insecure: true, alias: [up]}
cluster:
  name: %s
  bind_addr: %s:%d
  peer_addr: %s:%d
  advertise: %s
  seeds: [%s]
  secret: only-for-this-run
`, t.Ports[0], host, cache, t.Registry.Addr, name, host, t.Ports[1], host, t.Ports[2], host, t.seeds())
	file := filepath.Join(folder, "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("making a node: %w", err)
	}
	at := fmt.Sprintf("%s:%d", host, t.Ports[0])
	node := &Node{
		Name: name, Addr: at, Folder: folder,
		command: t.inSpace(n, t.Program, "serve", "-c", file),
		leave:   t.inSpace(n, t.Program, "leave", "-addr", at),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Nodes = append(t.Nodes, node)
	return node, nil
}

// grow starts nodes until there are so many, all new ones at once, and waits until they are one
// cluster.
func (t *Trial) grow(ctx context.Context, to int) error {
	errs := make(chan error, to)
	starting := 0
	for ; len(t.Nodes) < to; starting++ {
		n, err := t.add()
		if err != nil {
			return err
		}
		go func() { errs <- n.Start(ctx) }()
	}
	for range starting {
		if err := <-errs; err != nil {
			return err
		}
	}
	return t.whole(ctx)
}

// living returns the nodes that are up.
func (t *Trial) living() (nodes []*Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.Nodes {
		if _, up := n.calm(); up {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// whole waits until all that are up see just each other as active, and have one ring.
func (t *Trial) whole(ctx context.Context) error {
	nodes := t.living()
	return within(ctx, 60*time.Second, func(ctx context.Context) error {
		for _, n := range nodes {
			v, err := n.view(ctx)
			if err != nil {
				return err
			}
			if got := v.count("active"); got != len(nodes) {
				return fmt.Errorf("%s sees %d of %d members", n.Name, got, len(nodes))
			}
		}
		return agree(ctx, nodes)
	})
}

// errDiffer is the error of nodes whose rings differ.
var errDiffer = errors.New("rings differ")

// agree returns nil if these nodes have one ring.
func agree(ctx context.Context, nodes []*Node) error {
	rings := map[string]bool{}
	for _, n := range nodes {
		v, err := n.view(ctx)
		if err != nil {
			return err
		}
		rings[v.Ring] = true
	}
	if len(rings) != 1 {
		return fmt.Errorf("%w: there are %d", errDiffer, len(rings))
	}
	return nil
}

// named returns the node of that name, or nil.
func (t *Trial) named(name string) *Node {
	for _, n := range t.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// holders returns how many of these nodes have each digest on their disk.
func holders(nodes []*Node) map[string]int {
	held := map[string]int{}
	for _, n := range nodes {
		for _, d := range n.Held() {
			held[d]++
		}
	}
	return held
}

// settle waits until all blobs have a second copy, or none has come for 12 s: what nobody had room for
// is offered again after 10 s. It takes 45 s at most.
func (t *Trial) settle(ctx context.Context) {
	alone, since := -1, time.Now()
	for deadline := time.Now().Add(45 * time.Second); ctx.Err() == nil && time.Now().Before(deadline) && time.Since(since) < 12*time.Second; {
		now := t.single()
		if now == 0 {
			return
		}
		if now != alone {
			alone, since = now, time.Now()
		}
		pause(ctx, 250*time.Millisecond)
	}
}

// end kills all nodes.
func (t *Trial) end() {
	for _, n := range t.Nodes {
		n.setUp(false)
		n.signal(syscall.SIGKILL)
	}
	for _, n := range t.Nodes {
		n.End(syscall.SIGKILL)
	}
	log.Print("the nodes are gone")
}
