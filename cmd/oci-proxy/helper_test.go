package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// asProgram is set to run the test's binary as the program itself.
const asProgram = "TEST_AS_OCI_PROXY"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	// memberlist's Shutdown does not wait for its last probes. They end by themselves, as
	// the tests of node/membership check.
	testkit.Main(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// patience bounds each wait of a test.
const patience = testkit.Patience

// A result is the result of a command.
type result struct {
	status   int
	out, err string
}

// call runs a command as main does.
func call(ctx context.Context, args ...string) result {
	var out, errs testkit.Log
	status := run(ctx, args, streams{out: &out, err: &errs})
	return result{status, out.String(), errs.String()}
}

// configFile writes a config and returns its path.
func configFile(t *testing.T, format string, args ...any) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// freePort returns a port of loopback for a process that is not started yet.
func freePort(t *testing.T) int {
	t.Helper()
	return int(netip.MustParseAddrPort(testkit.FreeAddr(t, "127.0.0.1")).Port())
}

// nodeConfig writes the config of a node in front of up, and returns its path and the
// node's address.
func nodeConfig(t *testing.T, up *upstreamtest.Registry, dir, more string) (file, addr string) {
	t.Helper()
	port := freePort(t)
	return configFile(t, "port: %d\naddress: 127.0.0.1\ndefault_registry: %q\ndefaults: {cache_dir: %q, cache_max_size: 8m}\nregistries: {%q: {insecure: true}}\n%s\n",
		port, up.Host(), dir, up.Host(), more), fmt.Sprintf("127.0.0.1:%d", port)
}

// A process is the running program.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string
	log  *testkit.Log
	done chan struct{} // closed when it has ended
}

// start starts the program, and waits until it answers on addr.
func start(t *testing.T, addr string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return startAs(t, addr, exec.Command(exe, args...))
}

// shipped builds the program as it ships, and returns its path: the memory and the time
// that this test's own binary takes are not the program's, above all with the race
// detector.
func shipped(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "oci-proxy")
	build := exec.Command("go", "build", "-o", exe, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	return exe
}

// startShipped is start for a program that was built.
func startShipped(t *testing.T, addr, exe string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(exe, args...)
	cmd.Env = os.Environ()
	return startAs(t, addr, cmd)
}

// startAs is start with a command of the caller's.
func startAs(t *testing.T, addr string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, addr: addr, log: new(testkit.Log), done: make(chan struct{})}
	if p.cmd.Env == nil {
		p.cmd.Env = append(os.Environ(), asProgram+"=1")
	}
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the status is in ProcessState
	}()
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	p.await()
	return p
}

// await waits until the process answers.
func (p *process) await() {
	p.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		if _, err := get(p.t.Context(), "http://"+p.addr+"/_/ready"); err == nil || errors.Is(err, errBadRequest) { // it may speak TLS
			return
		}
		select {
		case <-tick.C:
		case <-p.done:
			p.t.Fatalf("the process ended:\n%s", p.log.String())
		case <-timeout.C:
			p.t.Fatalf("the process does not answer:\n%s", p.log.String())
		}
	}
}

// end sends a signal and returns the exit status, or -1 if the process was killed.
func (p *process) end(s os.Signal) int {
	_ = p.cmd.Process.Signal(s) // it may have ended
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-p.done:
	case <-timeout.C:
		p.t.Errorf("the process does not end:\n%s", p.log.String())
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return p.cmd.ProcessState.ExitCode()
}

// pull returns a whole answer, and its Cache-Status.
func pull(ctx context.Context, client *http.Client, url string) (body []byte, status string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	body, err = io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, errors.New(resp.Status))
	}
	return body, resp.Header.Get("Cache-Status"), errors.Join(err, resp.Body.Close())
}

// newClient returns a client that closes each connection after an answer.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
}

// random returns size bytes that depend on seed.
func random(seed uint64, size int64) []byte { return upstreamtest.RandomBytes(seed, size) }

// wantIn fails the test unless text contains every part.
func wantIn(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in\n%s", part, text)
		}
	}
}
