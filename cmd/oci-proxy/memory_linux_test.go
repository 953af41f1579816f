package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// mayGrow is how much memory clients who do not read may cost a node altogether, over
// what it takes when nobody asks anything.
const mayGrow = 150 << 20

// A siege is a node, and many clients who ask for much and read nothing.
type siege struct {
	t    *testing.T
	up   *upstreamtest.Registry
	node *process
	idle int64 // bytes of memory before

	clients sync.WaitGroup // that insist

	mu       sync.Mutex // guards the fields below
	refusals int
	refusal  string // the last one
}

// besiege starts a node whose registry has what the clients will ask for.
func besiege(t *testing.T, exe, size string) *siege {
	t.Helper()
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < 10_000 {
		t.Skipf("only %d files may be open, so no node has turns for so many pulls: %v", files.Cur, err)
	}
	up := upstreamtest.New(t, upstreamtest.TLS())
	port := freePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	file := configFile(t, "port: %d\naddress: 127.0.0.1\ndefault_registry: %q\ndefaults: {cache_dir: %q, cache_max_size: %s}\nregistries: {%q: {insecure: true, upstream_requests: 1000}}\n",
		port, up.Host(), t.TempDir(), size, up.Host())
	s := &siege{t: t, up: up, node: startShipped(t, addr, exe, "serve", "-c", file)}
	if _, _, err := pull(t.Context(), newClient(), blobURL(addr, up.PutBlob(repo, random(1, 1<<20)))); err != nil {
		t.Fatal(err)
	}
	s.idle = s.memory("VmRSS")
	t.Cleanup(s.clients.Wait)
	return s
}

// memory is a figure of the node's process in bytes (proc_pid_status(5)).
func (s *siege) memory(name string) int64 {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.node.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return n << 10
		}
	}
	s.t.Fatalf("no %s in\n%s", name, b)
	return 0
}

// ask asks for a path and reads no more than begins the answer. With header it waits
// for the answer's header and returns its status.
func (s *siege) ask(path string, header bool) (status int, err error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	c, err := d.DialContext(s.t.Context(), "tcp", s.node.addr)
	if err != nil {
		return 0, err
	}
	context.AfterFunc(s.t.Context(), func() { _ = c.Close() }) // nothing was read
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil || !header {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), nil)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, nil
}

// asks has n clients ask for what path names. It returns how many answers have each status.
func (s *siege) asks(n int, header bool, path func(i int) string) map[int]int {
	s.t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	got := map[int]int{}
	for i := range n {
		all.Go(func() {
			status, err := s.ask(path(i), header)
			if err != nil {
				s.t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			got[status]++
		})
	}
	all.Wait()
	return got
}

// lists has 40 clients ask for a list of tags of 30 MB in one of so many repositories.
func (s *siege) lists(repos int) {
	var tags []string
	for i := range 1 << 20 {
		tags = append(tags, fmt.Sprintf("version-%018d", i))
	}
	list, err := json.Marshal(map[string]any{"name": repo, "tags": tags})
	if err != nil {
		s.t.Fatal(err)
	}
	s.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/tags/list"}, Wrap: func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(list)
		return true
	}})
	path := func(i int) string { return fmt.Sprintf("/v2/%s%d/tags/list", repo, i%repos) }
	if body, _, err := pull(s.t.Context(), newClient(), "http://"+s.node.addr+path(0)); err != nil || !bytes.Equal(body, list) {
		s.t.Errorf("one who reads gets %d bytes of the list's %d, %v", len(body), len(list), err)
	}
	s.asks(40, false, path)
}

// manifests has n clients ask for a manifest of 4 MB, one of so many. If those are kept
// all are answered.
func (s *siege) manifests(n, different int, kept bool) {
	paths := make([]string, different)
	for i := range paths {
		paths[i] = "/v2/" + repo + "/manifests/" + s.largeManifest(i).String()
		if _, _, err := pull(s.t.Context(), newClient(), "http://"+s.node.addr+paths[i]); err != nil {
			s.t.Fatal(err)
		}
	}
	if got := s.asks(n, kept, func(i int) string { return paths[i%different] }); kept && got[http.StatusOK] != n {
		s.t.Errorf("the answers' statuses: %v", got)
	}
}

// largeManifest puts a manifest of nearly 4 MiB into the registry.
func (s *siege) largeManifest(i int) digest.Digest {
	text := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"digest":%q,"size":2,"mediaType":%q},"layers":[],"annotations":{"n":"%d","pad":%q}}`,
		upstreamtest.TypeManifest, digest.FromString("{}"), upstreamtest.TypeConfig, i, strings.Repeat("x", 4_000_000))
	return s.up.PutManifest(repo, fmt.Sprint("v", i), upstreamtest.TypeManifest, []byte(text))
}

// stalled is where the blobs are that the registry does not send.
const stalled = "team/stalled/blobs/"

// downloads has n clients ask for a blob each, which the registry announces and then
// sends no more of than the first bytes. It waits until all have come to the registry.
func (s *siege) downloads(n int, size, sent int64) {
	s.t.Helper()
	first, begun := make([]byte, sent), make(chan string, n)
	s.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: stalled}, Wrap: func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		w.WriteHeader(http.StatusOK)
		select {
		case begun <- r.URL.Path:
		case <-r.Context().Done():
		}
		_, _ = w.Write(first)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	}})
	for i := range n {
		s.clients.Go(func() { s.insist("/v2/" + stalled + digest.FromString(fmt.Sprint(i)).String()) })
	}
	late, blobs := time.After(testkit.Patience), map[string]bool{}
	for len(blobs) < n {
		select {
		case blob := <-begun:
			blobs[blob] = true
		case <-late:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.t.Fatalf("%d of %d downloads have begun; clients were refused %d times, at last with %s", len(blobs), n, s.refusals, s.refusal)
		}
	}
}

// insist asks for a path and reads no more than the answer's header. A client who is
// refused, as on a machine that is too slow for so many, asks again after a second.
func (s *siege) insist(path string) {
	for {
		status, err := s.ask(path, true)
		if status == http.StatusOK {
			return
		}
		s.mu.Lock()
		s.refusals++
		s.refusal = fmt.Sprint(status, " ", err)
		s.mu.Unlock()
		select {
		case <-time.After(time.Second):
		case <-s.t.Context().Done():
			return
		}
	}
}

// settled waits until the node's memory has not grown for a second, and holds it to
// mayGrow. Somebody who reads is served all the same.
func (s *siege) settled() {
	s.t.Helper()
	most, since := int64(0), time.Now()
	testkit.Await(s.t, "the node's memory does not grow", func() bool {
		if now := s.memory("VmHWM"); now > most {
			most, since = now, time.Now()
		}
		return time.Since(since) > time.Second
	})
	s.t.Logf("%d MiB when idle, at most %d MiB more", s.idle>>20, (most-s.idle)>>20)
	if most-s.idle > mayGrow {
		s.t.Errorf("the node takes %d MiB more than idle, want at most %d", (most-s.idle)>>20, mayGrow>>20)
	}
	content := random(2, 1<<20)
	if body, _, err := pull(s.t.Context(), newClient(), blobURL(s.node.addr, s.up.PutBlob(repo, content))); err != nil || !bytes.Equal(body, content) {
		s.t.Errorf("one who reads gets %d bytes, %v", len(body), err)
	}
}

// Clients who ask for much and read nothing, and registries that send nothing, cost a
// node little memory.
func TestMemoryOfSlowClients(t *testing.T) { //nolint:tparallel // the sieges follow one another
	t.Parallel()
	testkit.SkipShort(t)
	exe := shipped(t)
	for _, c := range []struct {
		name, store string // and the bound of its store
		ask         func(*siege)
	}{
		{"one manifest", "1g", func(s *siege) { s.manifests(250, 1, true) }},
		{"many manifests", "1g", func(s *siege) { s.manifests(250, 50, true) }},
		{"a manifest that is not kept", "2m", func(s *siege) { s.manifests(250, 1, false) }},
		{"many manifests that are not kept", "2m", func(s *siege) { s.manifests(250, 50, false) }},
		{"downloads that bring nothing", "1g", func(s *siege) { s.downloads(300, 2<<20, 0) }},
		{"downloads that stop", "4g", func(s *siege) { s.downloads(300, 8<<20, 1<<20+100) }},
		{"downloads that stop at a step", "4g", func(s *siege) { s.downloads(300, 8<<20, 4<<20) }},
		{"small downloads that stop", "4g", func(s *siege) { s.downloads(300, 60<<10, 50<<10) }},
		{"downloads without room", "2m", func(s *siege) { s.downloads(300, 8<<20, 5<<20) }},
		{"one list", "1g", func(s *siege) { s.lists(1) }},
		{"many lists", "1g", func(s *siege) { s.lists(40) }},
		{"many lists that are not kept", "2m", func(s *siege) { s.lists(40) }},
		{"all at once", "4g", func(s *siege) {
			s.manifests(250, 1, true)
			s.lists(1)
			s.downloads(300, 8<<20, 1<<20)
		}},
		{"all at once, not kept", "2m", func(s *siege) {
			s.manifests(250, 1, false)
			s.lists(1)
			s.downloads(300, 8<<20, 1<<20)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := besiege(t, exe, c.store)
			c.ask(s)
			s.settled()
		})
	}
}
