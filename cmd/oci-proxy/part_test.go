package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// A process that ends during a download continues it after a restart. A kill may lose
// the part that was not recorded yet.
func TestDownloadGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	const size, came, noted = 7<<20 + 100, 6 << 20, 4 << 20
	for name, c := range map[string]struct {
		signal os.Signal
		least  int64
	}{
		"killed":     {syscall.SIGKILL, noted},
		"terminated": {syscall.SIGTERM, came},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			content := random(1, size)
			d := up.PutBlob(repo, content)
			file, addr := nodeConfig(t, up, t.TempDir(), "shutdown_timeout: 0s")
			up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: d.String()}, Times: 1, Stall: true, StallAfter: came})
			p := start(t, addr, "serve", "-c", file)
			resp := begun(t, blobURL(addr, d))
			if _, err := io.CopyN(io.Discard, resp.Body, came); err != nil {
				t.Fatal(err)
			}
			p.end(c.signal)
			_ = resp.Body.Close() // the answer was cut
			start(t, addr, "serve", "-c", file)
			body, status, err := pull(t.Context(), newClient(), blobURL(addr, d))
			if err != nil || !bytes.Equal(body, content) || !strings.Contains(status, "stored") {
				t.Errorf("%d bytes, %q, %v", len(body), status, err)
			}
			var ranges []string
			for _, q := range up.Requests() {
				if q.Method == http.MethodGet && strings.Contains(q.Path, d.Encoded()) {
					ranges = append(ranges, q.Header.Get("Range"))
				}
			}
			var from int64
			if len(ranges) == 2 {
				_, _ = fmt.Sscanf(ranges[1], "bytes=%d-", &from) // 0 fails the check below
			}
			if from < c.least || from > came {
				t.Errorf("upstream was asked for the ranges %q", ranges)
			}
		})
	}
}

// begun requests a blob, and returns the answer before its body is read.
func begun(t *testing.T, url string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := newClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
