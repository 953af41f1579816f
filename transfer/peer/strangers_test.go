package peer

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Connections of strangers, with half a request or none, do not keep a member out, whether
// it is connected or connects later.
func TestStrangersMakeRoom(t *testing.T) {
	t.Parallel()
	for name, secured := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{tls: secured})
			var member net.Conn
			if !secured {
				member = r.dial(t)
				askOver(t, member, good(1000))
			}
			if _, err := r.Stats(t.Context(), "b"); err != nil {
				t.Fatal(err)
			}
			var strangers []net.Conn
			for i := range maxStrangers + 50 {
				c := r.dial(t)
				strangers = append(strangers, c)
				if i%2 == 0 && !secured {
					_, _ = io.WriteString(c, "GET /peer/v1/ping HTTP/1.1\r\nHost: ")
				}
			}
			for _, c := range strangers[:40] {
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
					t.Fatalf("the first strangers are still there: %v", err)
				}
			}
			if _, err := r.Stats(t.Context(), "b"); err != nil || !r.Healthy("b") {
				t.Errorf("a member is not served: %v", err)
			}
			if !secured {
				askOver(t, member, good(1001))
			}
		})
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error) //nolint:errorlint // as net returns it
	return ok && e.Timeout()
}

// dial connects to the rig's server until the test ends.
func (r *rig) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the server may have done so
	return c
}

// askOver sends a signed request over the connection.
func askOver(t *testing.T, c net.Conn, q raw) {
	t.Helper()
	if _, err := io.WriteString(c, q.signed().text()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Errorf("status %d, %v", resp.StatusCode, err)
	}
}
