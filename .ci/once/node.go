package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Node is a process of the program, which comes and goes.
type Node struct {
	Name   string
	Addr   string // host:port for clients
	Folder string // of its config, log and cache

	command []string // that starts it
	leave   []string // that makes it leave

	mu        sync.Mutex
	cmd       *exec.Cmd
	gone      chan struct{} // closed when the process has ended
	up        bool          // clients may be sent there
	disturbed int           // how often it was killed, stopped or ended
	ended     int           // how often it ended though nobody made it
}

// URL returns the address of a path at the node.
func (n *Node) URL(path string) string { return "http://" + n.Addr + path }

// calm returns how often the node was disturbed, and whether clients may be sent there.
func (n *Node) calm() (disturbed int, up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.disturbed, n.up
}

// Start starts the process, and waits until it is ready.
func (n *Node) Start(ctx context.Context) error {
	out, err := os.OpenFile(filepath.Join(n.Folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("starting %s: %w", n.Name, err)
	}
	defer out.Close()
	cmd := exec.Command(n.command[0], n.command[1:]...) //nolint:noctx // ctx may end before the node does
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", n.Name, err)
	}
	gone := make(chan struct{})
	n.mu.Lock()
	n.cmd, n.gone = cmd, gone
	n.mu.Unlock()
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		n.mu.Lock()
		if n.up {
			n.up = false
			n.disturbed++
			n.ended++
		}
		n.mu.Unlock()
		close(gone)
	}()
	if err := within(ctx, 60*time.Second, n.ready); err != nil {
		return fmt.Errorf("%s does not become ready: %w", n.Name, err)
	}
	n.setUp(true)
	return nil
}

// setUp says whether clients may be sent there from now on.
func (n *Node) setUp(up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.up && !up {
		n.disturbed++
	}
	n.up = up
}

// signal sends a signal to the process, if it runs.
func (n *Node) signal(s os.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(s) // it may have ended
	}
}

// End ends the process by SIGKILL or SIGTERM, and waits until it is gone. One that does not end
// within 90 s is killed.
func (n *Node) End(s os.Signal) {
	n.mu.Lock()
	gone := n.gone
	n.mu.Unlock()
	if gone == nil {
		return
	}
	n.setUp(false)
	n.signal(s)
	select {
	case <-gone:
	case <-time.After(90 * time.Second):
		n.signal(syscall.SIGKILL)
		<-gone
	}
}

// Leave makes the node leave the cluster for good.
func (n *Node) Leave(ctx context.Context) error {
	n.setUp(false)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, n.leave[0], n.leave[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s does not leave: %w: %s", n.Name, err, out)
	}
	n.End(syscall.SIGTERM)
	return nil
}

// Freeze stops the process for so long, or until ctx ends.
func (n *Node) Freeze(ctx context.Context, d time.Duration) {
	n.setUp(false)
	n.signal(syscall.SIGSTOP)
	pause(ctx, d)
	n.signal(syscall.SIGCONT)
	n.setUp(true)
}

// direct asks nodes. It uses no proxy, whatever the environment says.
var direct = &http.Client{Transport: &http.Transport{}}

// ask gets JSON from a path at the node.
func (n *Node) ask(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL(path), http.NoBody)
	if err != nil {
		return fmt.Errorf("asking %s: %w", n.Name, err)
	}
	resp, err := direct.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s of %s: %s", path, n.Name, resp.Status)
	}
	if into == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("%s of %s: %w", path, n.Name, err)
	}
	return nil
}

// ready returns nil if the node wants traffic.
func (n *Node) ready(ctx context.Context) error { return n.ask(ctx, "/_/ready", nil) }

// A view is what a node knows of its cluster.
type view struct {
	Ring    string
	Members []struct{ Name, State string }
}

// view asks the node for it.
func (n *Node) view(ctx context.Context) (v view, err error) {
	err = n.ask(ctx, "/_/cluster", &v)
	return v, err
}

// count returns how many members are in this state.
func (v view) count(state string) (members int) {
	for _, m := range v.Members {
		if m.State == state {
			members++
		}
	}
	return members
}

// Owner returns the name of the blob's owner, as the node sees it.
func (n *Node) Owner(ctx context.Context, b *Blob) (string, error) {
	var v struct{ Owner string }
	err := n.ask(ctx, "/_/owner/"+b.Digest, &v)
	return v.Owner, err
}

// ToPeers returns how many bytes of blobs the node has sent to others since it started.
func (n *Node) ToPeers(ctx context.Context) (bytes int64, err error) {
	var v map[string]struct{ ToPeersBytes int64 }
	err = n.ask(ctx, "/_/stats?scope=node", &v)
	for _, r := range v {
		bytes += r.ToPeersBytes
	}
	return bytes, err
}

// Held returns the digests of the blobs that lie on the node's disk.
func (n *Node) Held() (digests []string) {
	files, _ := filepath.Glob(filepath.Join(n.Folder, "cache/blobs/sha256/*/*")) // the pattern is good
	for _, f := range files {
		if name := filepath.Base(f); !strings.Contains(name, ".") {
			digests = append(digests, "sha256:"+name)
		}
	}
	return digests
}

// errLate is the error of what did not come about in its time.
var errLate = errors.New("not in time")

// within tries until do succeeds, and returns its last error after d.
func within(ctx context.Context, d time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	last := errLate
	for {
		err := do(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w (after %s)", last, d)
		}
		last = err
		pause(ctx, 100*time.Millisecond)
	}
}
