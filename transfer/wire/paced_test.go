package wire

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/testkit"
)

// deadlines counts how often a deadline is set.
type deadlines struct {
	http.ResponseWriter
	set int
}

func (d *deadlines) SetWriteDeadline(time.Time) error {
	d.set++
	return nil
}

// request is a request of that method without a connection.
func request(method string) *http.Request { return httptest.NewRequest(method, "/", nil) }

func TestPiecesEachHaveADeadline(t *testing.T) {
	t.Parallel()
	w := &deadlines{ResponseWriter: httptest.NewRecorder()}
	p := Pace(w, request("GET"), time.Minute)
	src := &io.LimitedReader{R: bytes.NewReader(make([]byte, 4*piece)), N: 3*piece + 5}
	if k, err := p.ReadFrom(src); k != 3*piece+5 || err != nil || src.N != 0 || w.set != 4 || p.Sent() != k {
		t.Errorf("ReadFrom: %d bytes, %v, %d left, %d deadlines, %d counted", k, err, src.N, w.set, p.Sent())
	}
	if k, err := p.ReadFrom(strings.NewReader("short")); k != 5 || err != nil {
		t.Errorf("ReadFrom of a reader without a limit: %d bytes, %v", k, err)
	}
	w.set = 0
	if k, err := p.Write(make([]byte, 2*piece+1)); k != 2*piece+1 || err != nil || w.set != 3 {
		t.Errorf("Write: %d bytes, %v, %d deadlines", k, err, w.set)
	}
	if p.Status() != http.StatusOK {
		t.Errorf("status %d, want 200, which net/http implies", p.Status())
	}
}

func TestShortSourceEndsReadFrom(t *testing.T) {
	t.Parallel()
	p := Pace(httptest.NewRecorder(), request("GET"), time.Minute)
	if k, err := p.ReadFrom(&io.LimitedReader{R: strings.NewReader("short"), N: 3 * piece}); k != 5 || err != nil {
		t.Errorf("%d bytes, %v", k, err)
	}
}

func TestStatusAndBytesAreCounted(t *testing.T) {
	t.Parallel()
	p := Pace(httptest.NewRecorder(), request("GET"), time.Minute)
	if p.Status() != 0 || p.Sent() != 0 {
		t.Errorf("before the answer: status %d, %d bytes", p.Status(), p.Sent())
	}
	p.WriteHeader(http.StatusTeapot)
	p.WriteHeader(http.StatusOK) // net/http ignores the second
	_, _ = io.WriteString(p, "hello")
	if p.Status() != http.StatusTeapot || p.Sent() != 5 {
		t.Errorf("status %d, %d bytes", p.Status(), p.Sent())
	}
	head := Pace(httptest.NewRecorder(), request("HEAD"), time.Minute)
	_, _ = io.WriteString(head, "hello")
	if _, err := head.ReadFrom(strings.NewReader("hello")); err != nil || head.Sent() != 0 {
		t.Errorf("%d bytes are counted for a HEAD, %v", head.Sent(), err)
	}
}

func TestFilesLeaveBySendfile(t *testing.T) {
	t.Parallel()
	const size = 3*piece + 7
	content := bytes.Repeat([]byte("abcdefg"), size/7+1)[:size]
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		p := Pace(w, r, time.Minute)
		p.Header().Set("Content-Length", strconv.Itoa(size))
		p.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(p).Flush()
		if n, err := io.Copy(p, io.LimitReader(f, size)); err != nil || n != size {
			t.Errorf("%d bytes, %v", n, err)
		}
	}))
	s := &testkit.Spy{Listener: srv.Listener}
	srv.Listener = s
	srv.Start()
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes came, %v", len(got), err)
	}
	if n := s.Files(); n != size {
		t.Errorf("%d of %d bytes left by sendfile", n, size)
	}
}

// An answer begins with its header; one with a body begins when the body does.
func TestTheBeginningIsThatOfTheBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := Pace(httptest.NewRecorder(), request("GET"), time.Minute)
		if !p.Began().IsZero() {
			t.Error("it has begun before the answer")
		}
		for _, step := range []struct {
			do   func()
			want time.Duration
		}{
			{func() { p.WriteHeader(http.StatusOK) }, time.Second},
			{func() { p.WriteHeader(http.StatusOK) }, time.Second}, // which net/http ignores
			{func() { _, _ = io.WriteString(p, "hello") }, 3 * time.Second},
			{func() { _, _ = io.WriteString(p, "hello") }, 3 * time.Second},
			{func() { _, _ = p.ReadFrom(strings.NewReader("hello")) }, 3 * time.Second},
		} {
			time.Sleep(time.Second) // in the bubble
			step.do()
			if got := p.Began().Sub(start); got != step.want {
				t.Errorf("it began after %v, want %v", got, step.want)
			}
		}
	})
}
