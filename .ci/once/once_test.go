package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// played returns a trial with a registry that fails as often as told to, and nodes that are no
// processes: each answers as serve says.
func played(t *testing.T, fails int64, serve ...http.HandlerFunc) *Trial {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	trial, err := newTrial(ctx, Setting{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	trial.Registry.Fails.Store(fails)
	for i, h := range serve {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		trial.Nodes = append(trial.Nodes, &Node{Name: fmt.Sprintf("node-%d", i+1), Addr: strings.TrimPrefix(srv.URL, "http://"), up: true})
	}
	return trial
}

// made returns blobs that the trial's registry has.
func made(t *testing.T, trial *Trial, n int, size int64) []*Blob {
	t.Helper()
	blobs, err := trial.blobs(n, size, size)
	if err != nil {
		t.Fatal(err)
	}
	return blobs
}

// through passes requests on to the registry, keeping nothing.
func through(trial **Trial) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { (*trial).Registry.ServeHTTP(w, r) }
}

func TestBlobsAreTheSameFromAnywhere(t *testing.T) {
	t.Parallel()
	blobs, err := newBlobs(7, 3, 1000, 5000)
	if err != nil {
		t.Fatal(err)
	}
	again, err := newBlobs(7, 3, 1000, 5000)
	if err != nil || again[2].Digest != blobs[2].Digest || blobs[0].Digest == blobs[1].Digest {
		t.Errorf("equal seeds make %v and %v, %v", blobs, again, err)
	}
	for _, b := range blobs {
		all, err := io.ReadAll(b.Open())
		if err != nil || int64(len(all)) != b.Size {
			t.Fatalf("%d of %d bytes, %v", len(all), b.Size, err)
		}
		if err := iotest.TestReader(b.Open(), all); err != nil {
			t.Error(err)
		}
	}
}

func TestTheRegistryCountsWhatItSends(t *testing.T) {
	t.Parallel()
	trial := played(t, 0)
	b := made(t, trial, 1, 10_000)[0]
	get := func(method, digest, span string) (*http.Response, []byte) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+trial.Registry.Addr+"/v2/x/blobs/"+digest, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Range", span)
		resp, err := direct.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		return resp, body
	}
	get(http.MethodHead, b.Digest, "")
	_, all := get(http.MethodGet, b.Digest, "")
	resp, part := get(http.MethodGet, b.Digest, "bytes=9000-")
	if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(part, all[9000:]) {
		t.Errorf("a part is %s of %d bytes", resp.Status, len(part))
	}
	if resp, _ := get(http.MethodGet, "sha256:none", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown blob is %s", resp.Status)
	}
	if sent := trial.Registry.Sent(); len(sent) != 1 || sent[b.Digest] != 11_000 {
		t.Errorf("sent: %v", sent)
	}
}

func TestPullsAreCheckedAndCounted(t *testing.T) {
	t.Parallel()
	var trial *Trial
	lies := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "something else") }
	ends := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10000")
		fmt.Fprint(w, "too short")
	}
	refuses := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) }
	trial = played(t, 0, through(&trial), lies, ends, refuses)
	blobs := made(t, trial, 2, 10_000)
	trial.Each(t.Context(), trial.Nodes, blobs, 4)
	trial.Pull(t.Context(), trial.Nodes[:1], blobs[0]) // for the second time
	trial.ratio(1)
	line, good := trial.outcome()
	if want := "upstream ÷ unique 1.500 (NOT ≤ 1.000); failed pulls 4.000 (NOT ≤ 0); wrong 2.000 (NOT ≤ 0); 9 pulls, 0 moved"; good || !strings.HasPrefix(line, want) {
		t.Errorf("%v: %s\nwant %s", good, line, want)
	}
	if got := strings.Join(trial.reasons, "\n"); !strings.Contains(got, "node-2") || !strings.Contains(got, "502 Bad Gateway") {
		t.Errorf("reasons: %s", got)
	}
}

func TestAPullMovesFromANodeThatIsKilled(t *testing.T) {
	t.Parallel()
	var trial *Trial
	var asked atomic.Int64
	dies := func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Length", "10000")
		fmt.Fprint(w, "half of it")
		trial.Nodes[0].setUp(false)
	}
	trial = played(t, 0, dies, through(&trial))
	b := made(t, trial, 1, 10_000)[0]
	for asked.Load() == 0 { // until the choice falls on the first node
		trial.Pull(t.Context(), trial.Nodes, b)
	}
	if trial.failed != 0 || trial.moved != 1 || trial.delivered[b.Digest] != b.Size {
		t.Errorf("%d failed, %d moved: %v", trial.failed, trial.moved, trial.reasons)
	}
}

func TestTheLoadGoesOnUntilItIsStopped(t *testing.T) {
	t.Parallel()
	var trial *Trial
	ctx, stop := context.WithCancel(t.Context())
	var asked atomic.Int64
	trial = played(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 20 {
			stop()
		}
		trial.Registry.ServeHTTP(w, r)
	})
	trial.Keep(ctx, t.Context(), trial.living, made(t, trial, 5, 1000), 500)()
	if trial.pulls < 20 || trial.failed > 0 {
		t.Errorf("%d pulls, %d failed: %v", trial.pulls, trial.failed, trial.reasons)
	}
}

func TestTheRegistryFailsInAllWays(t *testing.T) {
	t.Parallel()
	var trial *Trial
	trial = played(t, 1000, through(&trial))
	b := made(t, trial, 1, 100_000)[0]
	trial.client.Timeout = time.Second // of those that stand still
	n := 0
	for _, want := range []string{"429", "503", "unexpected EOF", "Client.Timeout"} {
		seen := false
		for range 300 {
			n++
			err := trial.fetch(t.Context(), trial.Nodes[0], b)
			if (err == nil) != (n%3 == 0) || errors.Is(err, errWrong) {
				t.Fatalf("request %d ends with %v", n, err)
			}
			if seen = err != nil && strings.Contains(err.Error(), want); seen {
				break
			}
		}
		if !seen {
			t.Errorf("no failure has %q", want)
		}
	}
}

func TestWhatNodesSayIsUnderstood(t *testing.T) {
	t.Parallel()
	ring := "a"
	says := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/_/cluster":
			fmt.Fprintf(w, `{"ring": %q, "members": [{"name": "x", "state": "active"}, {"name": "y", "state": "down"}]}`, ring)
		case "/_/stats":
			fmt.Fprint(w, `{"a": {"ToPeersBytes": 3}, "b": {"ToPeersBytes": 4}}`)
		default:
			fmt.Fprint(w, `{"owner": "x"}`)
		}
	}
	trial := played(t, 0, says, says)
	n := trial.Nodes[0]
	v, err := n.view(t.Context())
	if err != nil || v.count("active") != 1 || v.count("down") != 1 || v.Ring != "a" {
		t.Errorf("view %v, %v", v, err)
	}
	if bytes, err := n.ToPeers(t.Context()); err != nil || bytes != 7 {
		t.Errorf("%d bytes to peers, %v", bytes, err)
	}
	if name, err := n.Owner(t.Context(), &Blob{}); err != nil || name != "x" {
		t.Errorf("owner %q, %v", name, err)
	}
	if err := agree(t.Context(), trial.Nodes); err != nil {
		t.Error(err)
	}
	trial.Nodes[1] = played(t, 0, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"ring": "b"}`) }).Nodes[0]
	if err := agree(t.Context(), trial.Nodes); !errors.Is(err, errDiffer) {
		t.Errorf("two rings: %v", err)
	}
}

func TestFiguresAreJudgedInThreeDigits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		figure
		want string
		good bool
	}{
		{figure{"x", 1.0004, 1}, "x 1.000 (≤ 1.000)", true},
		{figure{"x", 1.0006, 1}, "x 1.001 (NOT ≤ 1.000)", false},
		{figure{"x", 512, 512}, "x 512 (≤ 512)", true},
		{figure{"x", 77, -1}, "x 77", true},
	} {
		if c.String() != c.want || c.good != c.figure.good() {
			t.Errorf("%q, %v; want %q", c, c.figure.good(), c.want)
		}
	}
}

func TestTheRowsAreListed(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"rows"}, &out); err != nil || !strings.Contains(out.String(), "\nkill one node is killed for good\n") {
		t.Errorf("%s, %v", out.String(), err)
	}
	if err := run(t.Context(), []string{"nothing"}, &out); err == nil {
		t.Error("a row that does not exist was run")
	}
}
