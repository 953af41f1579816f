package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"oci-proxy/transfer/upstreamtest"
)

// asProgram makes the test's binary the program itself.
const asProgram = "OCI_PROXY_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		_ = os.Unsetenv(asProgram) // which is no key of the config
		main()
	}
	goleak.VerifyTestMain(patient{m})
}

// A patient run waits for the last probes of memberlist, whose shutdown does not:
// they end by themselves, in some 8 s at most.
type patient struct{ *testing.M }

func (p patient) Run() int {
	status := p.M.Run()
	for end := time.Now().Add(10 * time.Second); status == 0 && goleak.Find() != nil && time.Now().Before(end); {
	}
	return status
}

// long returns how often a test does something: short times, or, where
// LONG_TESTS says which part of the long form is wanted (1: all), so much of it.
func long(short, full int) int {
	part, err := strconv.ParseFloat(os.Getenv("LONG_TESTS"), 64)
	if err != nil {
		return short
	}
	return max(short, int(part*float64(full)))
}

// patience bounds what a test waits for.
const patience = 20 * time.Second

// A result is what a command did.
type result struct {
	status   int
	out, err string
}

// call calls run as main does.
func call(ctx context.Context, args ...string) result {
	var out, errs safeBuffer
	status := run(ctx, args, streams{&out, &errs})
	return result{status, out.String(), errs.String()}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// configFile writes a config, and returns its path.
func configFile(t *testing.T, format string, args ...any) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// ports are given out by freePort: the last one.
var ports atomic.Int32

func init() { ports.Store(rand.Int32N(10_000)) }

// freePort is a port of loopback for a process that is yet to be started. It is
// below those that systems give to connections, and to who asks for any: one of
// them could be taken before the process listens.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20_000 + int(ports.Add(1)%10_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = l.Close() // nobody came
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// nodeConfig is the config of a node in front of up.
func nodeConfig(t *testing.T, up *upstreamtest.Registry, dir, more string) (file, addr string) {
	t.Helper()
	port := freePort(t)
	return configFile(t, "port: %d\naddress: 127.0.0.1\ndefault_registry: %q\ndefaults: {cache_dir: %q, cache_max_size: 8m}\nregistries: {%q: {insecure: true}}\n%s\n",
		port, up.Host(), dir, up.Host(), more), fmt.Sprintf("127.0.0.1:%d", port)
}

// A process is the program, running.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string
	log  *safeBuffer
	done chan struct{} // closed when it has ended
}

// start starts the program, which will serve on addr, and waits until it answers.
func start(t *testing.T, addr string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return startAs(t, addr, exec.Command(exe, args...))
}

// startAs starts the program by a command.
func startAs(t *testing.T, addr string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, addr: addr, log: new(safeBuffer), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its status is in ProcessState
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
			p.t.Fatalf("it ended:\n%s", p.log.String())
		case <-timeout.C:
			p.t.Fatalf("it does not answer:\n%s", p.log.String())
		}
	}
}

// end sends a signal and returns the exit status, -1 for one that was killed.
func (p *process) end(s os.Signal) int {
	_ = p.cmd.Process.Signal(s) // it may have ended
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-p.done:
	case <-timeout.C:
		p.t.Errorf("it does not end:\n%s", p.log.String())
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return p.cmd.ProcessState.ExitCode()
}

// pull gets a path whole and tells how it came about.
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

// newClient keeps no connection beyond an answer.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
}

// random returns size bytes that depend on seed.
func random(seed uint64, size int64) []byte { return upstreamtest.RandomBytes(seed, size) }

// wantIn fails the test unless text holds every part.
func wantIn(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in\n%s", part, text)
		}
	}
}
