package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// inside is set in the process that runs in the test's own network namespace.
const inside = "MESH_TEST_INSIDE"

// inNamespace runs the test in another process with its own network namespace. It
// reports whether this is that process. The namespace ends with its processes.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	t.Parallel()
	if testing.Short() {
		t.Skip("slow: it starts processes in network namespaces")
	}
	for _, tool := range []string{"ip", "iptables", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("network namespaces: %v", err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=100s")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch {
	case cmd.ProcessState == nil:
		t.Skipf("network namespaces: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "_test.go:") {
			t.Log("inside: " + strings.TrimSpace(line))
		}
	}
	return false
}

// must runs a tool. If permission is missing, it skips the test.
func must(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err == nil {
		return
	}
	if strings.Contains(string(out), "ermi") { // Permission denied, Operation not permitted
		t.Skipf("%v: %s", args, out)
	}
	t.Fatalf("%v: %v: %s", args, err, out)
}

// hostIP returns the address of a node in its network namespace.
func hostIP(i int) string { return fmt.Sprintf("10.99.0.%d", 10+i) }

// in runs a tool in the namespace of a node.
func (f *fleet) in(i int, args ...string) {
	f.t.Helper()
	must(f.t, append([]string{"nsenter", "-t", strconv.Itoa(f.nodes[i].cmd.Process.Pid), "-n"}, args...)...)
}

// newHosts starts n nodes, each in its own network namespace, on one switch with this
// process. prepare may add rules to a node's namespace before the node starts.
func newHosts(t *testing.T, n int, prepare func(f *fleet, i int)) *fleet {
	t.Helper()
	f := &fleet{t: t, up: upstreamtest.New(t)}
	must(t, "ip", "link", "set", "lo", "up")
	f.up.Down()
	f.up.Up() // lo was down
	must(t, "ip", "link", "add", "sw", "type", "bridge")
	must(t, "ip", "addr", "add", "10.99.0.1/24", "dev", "sw")
	must(t, "ip", "link", "set", "sw", "up")
	registry := forward(t, "10.99.0.1:0", f.up.Host())
	dir := t.TempDir()
	for i := range n {
		file := filepath.Join(dir, fmt.Sprintf("node-%d.yaml", i))
		text := fmt.Sprintf("port: 8080\ndefault_registry: %q\ndefaults: {cache_dir: %q}\nregistries: {%q: {insecure: true}}\nlog_level: debug\n"+
			"cluster: {name: node-%d, advertise: %s, seeds: ['%s:7946', '%s:7946'], secret: 'sesame sesame sesame'}\n",
			registry, filepath.Join(dir, strconv.Itoa(i)), registry, i, hostIP(i), hostIP(0), hostIP(1))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f.nodes = append(f.nodes, &member{name: fmt.Sprintf("node-%d", i), file: file})
		f.boot(i, func() {
			if prepare != nil {
				prepare(f, i)
			}
		})
	}
	return f
}

// boot starts a node in a namespace. A shell waits there until the namespace is ready.
func (f *fleet) boot(i int, prepare func()) {
	t, m := f.t, f.nodes[i]
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.CommandContext(t.Context(), "sh", "-c", `read _ && exec "$0" serve -c "$1"`, exe, m.file), addr: hostIP(i) + ":8080", log: new(testkit.Log), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stderr = p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Skipf("network namespaces: %v", err)
	}
	m.process = p
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the status is in ProcessState
	}()
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	link := fmt.Sprintf("v%d", i)
	must(t, "ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(p.cmd.Process.Pid))
	must(t, "ip", "link", "set", link, "master", "sw", "up")
	f.in(i, "ip", "addr", "add", hostIP(i)+"/24", "dev", "eth0")
	f.in(i, "ip", "link", "set", "eth0", "up")
	f.in(i, "ip", "link", "set", "lo", "up")
	prepare()
	if _, err := io.WriteString(stdin, "go\n"); err != nil {
		t.Fatal(err)
	}
	p.await()
}

// forward forwards connections to another address, and returns its own address.
func forward(t *testing.T, at, to string) string {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-over })
	go func() {
		defer close(over)
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close() // as the other end would
				continue
			}
			pipe := func(a, b net.Conn) {
				_, _ = io.Copy(a, b)
				_, _ = a.Close(), b.Close()
			}
			go pipe(in, out)
			go pipe(out, in)
		}
	}()
	return l.Addr().String()
}

// Node 1 can't open a connection to node 0, nor send it a datagram. The other
// direction works, and node 2 reaches both.
func TestMeshAsymmetricLinkBetweenHosts(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	f := newHosts(t, 3, nil)
	f.awaitMembers(3)
	ours, theirs := f.blobOf(0, 1<<20), f.blobOf(0, 1<<20)
	f.in(0, "iptables", "-A", "INPUT", "-s", hostIP(1), "-p", "tcp", "--syn", "-j", "DROP")
	f.in(0, "iptables", "-A", "INPUT", "-s", hostIP(1), "-p", "udp", "-j", "DROP")
	first := f.pull(1, ours)
	second := f.pull(1, theirs)
	back := f.pull(0, f.blobOf(1, 1<<20))
	t.Logf("a pull over the cut link took %v, the next one %v, one in the other direction %v", first, second, back)
	start := time.Now()
	for time.Since(start) < 8*time.Second { // long enough for gossip to find a member dead
		if n := f.nodes[2].active(); n != 3 {
			t.Errorf("node 2 sees %d members after %v, though only a link between two others is cut", n, time.Since(start))
			break
		}
		<-time.After(500 * time.Millisecond)
	}
	for _, i := range []int{0, 1, 2} {
		f.pull(i, f.up.PutRandomBlob(repo, uint64(5000+i), 100_000))
	}
}

func TestMeshWithoutUDP(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	start := time.Now()
	f := newHosts(t, 3, func(f *fleet, i int) {
		f.in(i, "iptables", "-A", "INPUT", "-p", "udp", "-j", "DROP")
	})
	f.awaitMembers(3)
	t.Logf("three nodes formed a mesh in %v", time.Since(start).Round(time.Millisecond))
	d := f.blobOf(1, 1<<20)
	for i := range f.nodes {
		f.pull(i, d)
	}
	if n := f.up.Count(http.MethodGet, d.String()); n != 1 {
		t.Errorf("the registry was asked %d times, want once", n)
	}
	start = time.Now()
	f.nodes[2].end(syscall.SIGKILL)
	f.awaitMembers(2)
	t.Logf("a kill was seen in %v", time.Since(start).Round(time.Millisecond))
}
