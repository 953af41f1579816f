package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A fleet is a cluster of real processes.
type fleet struct {
	t     *testing.T
	up    *upstreamtest.Registry
	nodes []*member
	seed  uint64
}

// A member is a process of a fleet.
type member struct {
	*process
	name, file string
}

// newFleet starts n nodes on loopback, and waits until each knows all.
func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	if testing.Short() {
		t.Skip("slow: it starts a cluster of processes")
	}
	f := &fleet{t: t, up: upstreamtest.New(t)}
	ports := make([]int, 3*n)
	for i := range ports {
		ports[i] = freePort(t)
	}
	dir := t.TempDir()
	for i := range n {
		file := filepath.Join(dir, fmt.Sprintf("node-%d.yaml", i))
		text := fmt.Sprintf("port: %d\naddress: 127.0.0.1\ndefault_registry: %q\ndefaults: {cache_dir: %q}\nregistries: {%q: {insecure: true}}\n"+
			"cluster: {name: node-%d, bind_addr: '127.0.0.1:%d', peer_addr: '127.0.0.1:%d', seeds: ['127.0.0.1:%d'], secret: 'sesame sesame sesame'}\n",
			ports[i], f.up.Host(), filepath.Join(dir, strconv.Itoa(i)), f.up.Host(), i, ports[n+i], ports[2*n+i], ports[n])
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m := &member{name: fmt.Sprintf("node-%d", i), file: file}
		m.process = start(t, fmt.Sprintf("127.0.0.1:%d", ports[i]), "serve", "-c", file)
		f.nodes = append(f.nodes, m)
	}
	f.awaitMembers(n)
	return f
}

// awaitMembers waits until each running node reports n active members.
func (f *fleet) awaitMembers(n int) {
	f.t.Helper()
	for _, m := range f.nodes {
		select {
		case <-m.done:
			continue
		default:
		}
		f.await(fmt.Sprintf("%s sees %d members", m.name, n), func() bool { return m.active() == n })
	}
}

// active returns the number of members that the node reports as active.
func (m *member) active() (n int) {
	var info struct{ Members []struct{ State string } }
	m.json("/_/cluster", &info)
	for _, one := range info.Members {
		if one.State == "active" {
			n++
		}
	}
	return n
}

// json decodes the node's answer at path. If there is none, it leaves into unchanged.
func (m *member) json(path string, into any) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	body, _, err := pull(ctx, newClient(), "http://"+m.addr+path)
	if err == nil {
		_ = json.Unmarshal(body, into) // a bad answer counts as none
	}
}

// await waits until ok returns true.
func (f *fleet) await(what string, ok func() bool) {
	f.t.Helper()
	if testkit.Happens(2*testkit.Patience, ok) {
		return
	}
	for _, m := range f.nodes {
		f.t.Logf("%s:\n%s", m.name, m.log.String())
	}
	f.t.Fatalf("still not after %v: %s", 2*testkit.Patience, what)
}

// blobOf returns a new blob that the node owns.
func (f *fleet) blobOf(owner int, size int64) digest.Digest {
	f.t.Helper()
	for range 200 {
		f.seed++
		d := f.up.PutRandomBlob(repo, f.seed, size)
		var info struct{ Owner string }
		f.nodes[0].json("/_/owner/"+d.String(), &info)
		if info.Owner == f.nodes[owner].name {
			return d
		}
	}
	f.t.Fatalf("none of 200 blobs is owned by %s", f.nodes[owner].name)
	return ""
}

// pull pulls a blob from a node, checks it, and returns how long that took.
func (f *fleet) pull(i int, d digest.Digest) time.Duration {
	f.t.Helper()
	start := time.Now()
	if err := f.try(i, d); err != nil {
		f.t.Errorf("the pull from %s failed after %v: %v", f.nodes[i].name, time.Since(start), err)
	}
	return time.Since(start).Round(time.Millisecond)
}

// try is pull for goroutines other than the test's.
func (f *fleet) try(i int, d digest.Digest) error {
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, blobURL(f.nodes[i].addr, d), nil)
	if err != nil {
		return err
	}
	resp, err := newClient().Do(req)
	if err != nil {
		return err
	}
	v := d.Verifier()
	n, err := io.Copy(v, resp.Body)
	_ = resp.Body.Close() // only read
	if err != nil || resp.StatusCode != http.StatusOK || !v.Verified() {
		return fmt.Errorf("status %d, %d bytes, %w", resp.StatusCode, n, err)
	}
	return nil
}

// inMidBody starts a pull from each node in at, and calls then when each of them has
// a quarter of the blob from the owner. It returns how long each pull took.
func (f *fleet) inMidBody(d digest.Digest, size int64, at []int, then func()) (took []time.Duration) {
	f.t.Helper()
	type result struct {
		took time.Duration
		err  error
	}
	results := make([]chan result, len(at))
	for k, i := range at {
		results[k] = make(chan result, 1)
		go func() {
			start := time.Now()
			err := f.try(i, d)
			results[k] <- result{time.Since(start), err}
		}()
	}
	for _, i := range at {
		f.await("a quarter of the blob has come", func() bool {
			var stats map[string]struct{ FromPeersBytes int64 }
			f.nodes[i].json("/_/stats?scope=node", &stats)
			return stats[f.up.Host()].FromPeersBytes >= size/4
		})
	}
	then()
	for k := range results {
		r := <-results[k]
		if r.err != nil {
			f.t.Errorf("the pull from %s failed after %v: %v", f.nodes[at[k]].name, r.took, r.err)
		}
		took = append(took, r.took.Round(time.Millisecond))
	}
	return took
}

func TestMeshOwnerProcessIsKilledInMidBody(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	const size = 16 << 20
	d := f.blobOf(1, size)
	f.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet}, SlowBytesPerSecond: size / 2})
	took := f.inMidBody(d, size, []int{0, 2}, func() { f.nodes[1].end(syscall.SIGKILL) })
	t.Logf("the pulls of a blob that takes 2 s took %v; the registry sent %.2f × its bytes", took, float64(f.up.BytesSent())/size)
	if sent := f.up.BytesSent(); sent > size*5/4 {
		t.Errorf("the registry sent %d bytes for a blob of %d", sent, size)
	}
	f.awaitMembers(2)
	t.Logf("the next pull took %v", f.pull(0, f.up.PutRandomBlob(repo, 1000, 1000)))
}

func TestMeshOwnerProcessHangs(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	const size = 16 << 20
	d, next := f.blobOf(1, size), f.blobOf(1, size)
	f.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet}, SlowBytesPerSecond: size / 2})
	stopped := f.nodes[1].cmd.Process
	took := f.inMidBody(d, size, []int{0, 2}, func() {
		if err := stopped.Signal(syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
	})
	t.Logf("the pulls of a blob that takes 2 s took %v; the next took %v", took, f.pull(0, next))
	if err := stopped.Signal(syscall.SIGCONT); err != nil {
		t.Error(err)
	}
	f.awaitMembers(3)
	f.pull(1, d)
}

// TestMeshFigureIdleCost measures what an idle cluster of ten costs.
func TestMeshFigureIdleCost(t *testing.T) {
	if os.Getenv("MESH_TEST_FIGURES") == "" || runtime.GOOS != "linux" {
		t.Skip("this only measures; set MESH_TEST_FIGURES to run it")
	}
	const n, rest = 10, 20 * time.Second
	f := newFleet(t, n)
	for range 3 { // so that there are connections and cached blobs
		f.pull(0, f.blobOf(1, 1<<20))
	}
	before := f.cpu()
	<-time.After(rest)
	used := f.cpu() - before
	var most, sum int64
	for _, m := range f.nodes {
		r := m.rss(t)
		most, sum = max(most, r), sum+r
	}
	t.Logf("%d nodes, %v: %.2f %% of a core per node; RSS %d MiB on average, %d MiB at most", n, rest,
		100*used.Seconds()/rest.Seconds()/n, sum/n>>20, most>>20)
}

// cpu returns the processor time that all nodes have used.
func (f *fleet) cpu() (sum time.Duration) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Linux runs Go
	for _, m := range f.nodes {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
		if err != nil {
			f.t.Fatal(err)
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		for _, k := range []int{11, 12} { // utime and stime, proc(5)
			ticks, err := strconv.Atoi(fields[k])
			if err != nil {
				f.t.Fatal(err)
			}
			sum += time.Duration(ticks) * tick
		}
	}
	return sum
}

// rss returns the resident memory of the node, in bytes.
func (m *member) rss(t *testing.T) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
