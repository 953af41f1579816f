package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// A process that may open only few files still serves, however many connections
// clients hold open: it closes idle connections first, and pulls wait for each other.
func TestFewDescriptorsAreEnough(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	file, addr := nodeConfig(t, up, t.TempDir(), "log_level: debug")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := startAs(t, addr, exec.Command("sh", "-c", `ulimit -n 128 && exec "$@"`, "sh", exe, "serve", "-c", file))
	var idle []net.Conn
	for range 400 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	client := newClient()
	for round := range 3 {
		var all sync.WaitGroup
		for i := range 20 {
			content := random(uint64(1+i%10), 100<<10)
			d := up.PutBlob("team/app", content)
			all.Go(func() {
				body, how, err := pull(t.Context(), client, fmt.Sprintf("http://%s/v2/team/app/blobs/%s", addr, d))
				if err != nil || !bytes.Equal(body, content) {
					t.Errorf("round %d: %d bytes, %s, %v", round, len(body), how, err)
				}
				if round > 0 && !strings.Contains(how, "hit") {
					t.Errorf("round %d: %s: the blob was not kept", round, how)
				}
			})
		}
		all.Wait()
	}
	for _, c := range idle {
		_ = c.Close() // most are closed already
	}
	p.end(syscall.SIGTERM)
	if strings.Contains(p.log.String(), "too many open files") {
		t.Errorf("log:\n%s", p.log.String())
	}
}
