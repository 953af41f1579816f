package main

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"oci-proxy/transfer/testkit"
)

// Profiles are served on loopback alone.
func TestProfilesAreForThisMachine(t *testing.T) {
	t.Parallel()
	file := configFile(t, "defaults: {cache_dir: %q}", t.TempDir())
	for _, addr := range []string{"0.0.0.0:6060", ":6060", "[::]:6060", "192.0.2.1:6060", "127.0.0.1", "localhost:6060", "6060", "example.com:6060"} {
		if got := call(t.Context(), "serve", "-c", file, "-pprof", addr); got.status != exitUsage || !strings.Contains(got.err, "is not an address of loopback with a port") {
			t.Errorf("%s: %d: %s", addr, got.status, got.err)
		}
	}
}

func TestProfiles(t *testing.T) {
	t.Parallel()
	var out testkit.Log
	end, err := serveProfiles(t.Context(), "127.0.0.1:0", streams{out: io.Discard, err: &out})
	if err != nil {
		t.Fatal(err)
	}
	url := regexp.MustCompile(`http://\S+`).FindString(out.String())
	for path, says := range map[string]string{"": "goroutine", "goroutine?debug=1": "goroutine profile", "cmdline": "oci-proxy"} {
		if code, body := getAs(t.Context(), t, url+path, ""); code != http.StatusOK || !strings.Contains(body, says) {
			t.Errorf("%s: %d", path, code)
		}
	}
	for host, want := range map[string]int{"localhost:1": 200, "[::1]:1": 200, "evil.example:80": 421, "10.0.0.1": 421} {
		if code, _ := getAs(t.Context(), t, url, host); code != want {
			t.Errorf("%s: %d, want %d", host, code, want)
		}
	}
	end()
	if resp, err := http.Get(url); err == nil {
		_ = resp.Body.Close()
		t.Error("profiles after the end")
	}
}

// getAs gets a URL with that Host, "" for its own.
func getAs(ctx context.Context, t *testing.T, url, host string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}
