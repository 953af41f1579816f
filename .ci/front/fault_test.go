package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	aBlob = "/v2/a/blobs/sha256:00"
	text  = "0123456789"
)

// broken returns a front of a registry with one blob that fails as faults say,
// and its log.
func broken(t *testing.T, faults string) (url string, log *bytes.Buffer) {
	t.Helper()
	list, err := readFaults(strings.NewReader(faults))
	if err != nil {
		t.Fatal(err)
	}
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Authorization", r.Header.Get("Authorization"))
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	}))
	t.Cleanup(registry.Close)
	f := &Front{Upstream: parsed(t, registry.URL)}
	log = new(bytes.Buffer)
	front := httptest.NewServer(logged(faulty(f.Serve(), list), log))
	t.Cleanup(front.Close)
	return front.URL, log
}

func parsed(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A got is what a client received of an answer.
type got struct {
	*http.Response
	body string
	err  error
}

// get asks for the blob on a connection of its own.
func get(t *testing.T, front string, header ...string) got {
	t.Helper()
	resp, err := begin(t.Context(), t, front, header...)
	if err != nil {
		return got{Response: &http.Response{}, err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return got{resp, string(body), err}
}

// begin is get up to the answer's body.
func begin(ctx context.Context, t *testing.T, front string, header ...string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, front+aBlob, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	return client.Do(r)
}

func TestFaultsStrikeAsOftenAsTheyAreToldTo(t *testing.T) {
	t.Parallel()
	front, log := broken(t, `{"name": "n", "path": "/v2/a/", "method": "GET", "times": 2, "status": 429, "retry": 7}
		{"name": "other", "path": "/v2/b/", "status": 500}`)
	for i, want := range []int{429, 429, 200} {
		g := get(t, front)
		if g.StatusCode != want || (g.Header.Get("Retry-After") == "7") != (want == 429) {
			t.Errorf("answer %d is %s, %v", i, g.Status, g.err)
		}
	}
	var names []string
	for lines := json.NewDecoder(log); ; {
		var e entry
		if lines.Decode(&e) != nil {
			break
		}
		names = append(names, e.Fault)
	}
	if strings.Join(names, " ") != "n n " {
		t.Errorf("the log names %q", names)
	}
}

func TestFaultsInTheBody(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault  string
		header []string
		want   string
		length int64
		err    error
	}{
		"a wrong byte":                          {fault: `"flip": 3`, want: "0122456789", length: 10},
		"a wrong byte in a part":                {fault: `"flip": 3`, header: []string{"Range", "bytes=2-5"}, want: "2245", length: 4},
		"a wrong byte before a part":            {fault: `"flip": 3`, header: []string{"Range", "bytes=4-"}, want: "456789", length: 6},
		"cut":                                   {fault: `"end": "cut", "at": 4`, want: "0123", length: 10, err: io.ErrUnexpectedEOF},
		"cut where the part begins":             {fault: `"end": "cut", "at": 4`, header: []string{"Range", "bytes=4-"}, length: 6, err: io.ErrUnexpectedEOF},
		"a wrong byte, and cut":                 {fault: `"flip": 3, "end": "cut", "at": 9`, want: "012245678", length: 10, err: io.ErrUnexpectedEOF},
		"cut at once":                           {fault: `"end": "cut"`, err: io.EOF},
		"reset at once":                         {fault: `"end": "reset"`, err: syscall.ECONNRESET},
		"no length":                             {fault: `"no_length": true`, want: text, length: -1},
		"cut, without a length":                 {fault: `"no_length": true, "end": "cut", "at": 4`, want: "0123", length: -1, err: io.ErrUnexpectedEOF},
		"slow":                                  {fault: `"slow": 100`, want: text, length: 10},
		"late":                                  {fault: `"wait": 1`, want: text, length: 10},
		"the range gets lost":                   {fault: `"without": "Range"`, header: []string{"Range", "bytes=4-"}, want: text, length: 10},
		"without a fault for it, there is none": {fault: `"method": "HEAD", "status": 500`, want: text, length: 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			front, _ := broken(t, `{`+c.fault+`}`)
			g := get(t, front, c.header...)
			if g.body != c.want || g.ContentLength != c.length || !errors.Is(g.err, c.err) {
				t.Errorf("%q of %d bytes, %v", g.body, g.ContentLength, g.err)
			}
		})
	}
}

func TestACutByResetAndAStall(t *testing.T) {
	t.Parallel()
	front, _ := broken(t, `{"times": 1, "end": "reset", "at": 4} {"end": "stall", "at": 4}`)
	if g := get(t, front); !errors.Is(g.err, syscall.ECONNRESET) { // what was sent may be lost with it
		t.Errorf("%q, %v", g.body, g.err)
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	resp, err := begin(ctx, t, front)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	four := make([]byte, 4)
	if _, err := io.ReadFull(resp.Body, four); err != nil || string(four) != "0123" {
		t.Errorf("%q, %v", four, err)
	}
	start := time.Now()
	time.AfterFunc(2*time.Second, leave)
	if n, err := resp.Body.Read(four); n > 0 || err == nil || time.Since(start) < 2*time.Second {
		t.Errorf("%d bytes more, %v after %v", n, err, time.Since(start))
	}
}

func TestAHeaderGetsLost(t *testing.T) {
	t.Parallel()
	front, _ := broken(t, `{"times": 1, "without": "Authorization"}`)
	for _, want := range []string{"", "Bearer x"} {
		if g := get(t, front, "Authorization", "Bearer x"); g.Header.Get("X-Authorization") != want {
			t.Errorf("the registry saw %q, want %q", g.Header.Get("X-Authorization"), want)
		}
	}
}

func TestFaultsThatCantBeRead(t *testing.T) {
	t.Parallel()
	for _, s := range []string{`{"tiems": 1}`, `{"times": 1`, `x`} {
		if _, err := readFaults(strings.NewReader(s)); err == nil {
			t.Errorf("%s was read", s)
		}
	}
}
