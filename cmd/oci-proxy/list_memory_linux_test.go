package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// listCost is how much memory 40 clients may cost a node who ask for a list of 30 MB and do
// not read it, over what it takes when nobody asks anything.
const listCost = 150 << 20

// largeList makes the registry answer every list of tags with 30 MB. Each list differs from
// those of other repositories, and if the version changes from those before.
func largeList(up *upstreamtest.Registry, version func() int64) {
	var tags strings.Builder
	for i := range 1 << 20 {
		fmt.Fprintf(&tags, `,"version-%018d"`, i)
	}
	tags.WriteString("]}")
	rest := []byte(tags.String())
	up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/tags/list"}, Wrap: func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"name":%q,"tags":["version-%d"`, r.URL.Path, version())
		_, _ = w.Write(rest) // whoever reads it sees
		return true
	}})
}

// unread asks for a path and reads nothing but the answer's status.
func unread(t *testing.T, addr, path string) (status int) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Error(err)
		return 0
	}
	t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, readErr := http.ReadResponse(bufio.NewReaderSize(c, 16), nil)
	if err := errors.Join(err, readErr); err != nil {
		t.Error(err)
		return 0
	}
	return resp.StatusCode
}

// peakMemory is the most memory that a process ever had, in bytes (proc_pid_status(5)).
func peakMemory(t *testing.T, p *process) (n int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	if _, err := fmt.Sscanf(rest, "%d kB", &n); err != nil {
		t.Fatal(err)
	}
	return n << 10
}

func TestListsThatNobodyReadsCostLittle(t *testing.T) {
	testkit.SkipShort(t)
	const clients = 40
	same := func(int) string { return "/v2/" + repo + "/tags/list" }
	each := func(i int) string { return fmt.Sprintf("/v2/team/app-%d/tags/list", i) }
	exe := shipped(t)
	for _, c := range []struct {
		name     string
		size     string // of the cache
		path     func(i int) string
		changing bool // the registry's list is another each time
		atOnce   bool
		noDisk   bool
		served   int // clients that are, at least; on a slow machine the others are told to come back
	}{
		{name: "one list", size: "10g", path: same, served: clients},
		{name: "one list that is larger than may be kept", size: "8m", path: same, served: clients},
		{name: "one list, which changes", size: "10g", path: same, changing: true, atOnce: true, served: 2},
		{name: "a list each", size: "8m", path: each, atOnce: true, served: 1},
		{name: "one list, without a disk", size: "10g", path: same, noDisk: true, served: clients},
		{name: "a list each, without a disk", size: "10g", path: each, atOnce: true, noDisk: true, served: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			up, dir := upstreamtest.New(t), filepath.Join(t.TempDir(), "cache")
			var version atomic.Int64
			largeList(up, func() int64 {
				if c.changing {
					version.Add(1)
				}
				return version.Load()
			})
			if c.noDisk {
				if err := os.WriteFile(dir, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
			node := startShipped(t, addr, exe, "serve", "-c", configFile(t, "port: %s\naddress: 127.0.0.1\ndefault_registry: %q\ndefaults: {cache_dir: %q, cache_max_size: %s}\nregistries: {%q: {insecure: true, upstream_requests: 1000}}\n",
				strings.TrimPrefix(addr, "127.0.0.1:"), up.Host(), dir, c.size, up.Host()))
			idle, got := peakMemory(t, node), make([]int, clients)
			var all sync.WaitGroup
			for i := range clients {
				ask := func() { got[i] = unread(t, addr, c.path(i)) }
				if c.atOnce {
					all.Go(ask)
				} else {
					ask()
				}
			}
			all.Wait()
			served := clients - len(slices.DeleteFunc(slices.Clone(got), func(status int) bool { return status == http.StatusOK }))
			cost := peakMemory(t, node) - idle
			t.Logf("%d MiB more than idle, %d clients of %d served", cost>>20, served, clients)
			if cost > listCost {
				t.Errorf("%d MiB more than idle, want at most %d", cost>>20, listCost>>20)
			}
			if served < c.served || slices.ContainsFunc(got, func(status int) bool { return status != http.StatusOK && status != http.StatusServiceUnavailable }) {
				t.Errorf("the answers' statuses: %v", got)
			}
			up.ClearFaults()
			up.PutImage("team/small", "v1", []byte("layer"))
			if _, _, err := pull(t.Context(), newClient(), "http://"+addr+"/v2/team/small/tags/list"); err != nil {
				t.Error("one who reads a small list is not served:", err)
			}
		})
	}
}
