package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// A shelf is a registry that takes pushes and does nothing else.
type shelf struct {
	mu   sync.Mutex
	held map[string][]byte // by path
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Method == http.MethodPost:
		w.Header().Set("Location", r.URL.Path+"1?state=x%2Fy")
		w.WriteHeader(http.StatusAccepted)
		return
	case strings.Contains(r.URL.Path, "/uploads/"):
		if r.URL.Query().Get("state") != "x/y" {
			http.Error(w, "the state is missing", http.StatusBadRequest)
			return
		}
		s.held[r.URL.Query().Get("digest")] = body
	default:
		s.held[r.URL.Path] = body
	}
	w.WriteHeader(http.StatusCreated)
}

func TestPushedImagesAreWhole(t *testing.T) {
	t.Parallel()
	s := &shelf{held: map[string][]byte{}}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	var out bytes.Buffer
	if err := pushImages(t.Context(), strings.NewReader(srv.URL+" a/b 4096\n"), &out); err != nil {
		t.Fatal(err)
	}
	var name, manifest, layer, config string
	var size int
	if _, err := fmt.Sscan(out.String(), &name, &manifest, &layer, &config, &size); err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	raw := s.held["/v2/a/b/manifests/v1"]
	if name != "a/b" || digestOf(raw) != manifest || size != 4096 || len(s.held[layer]) != size {
		t.Errorf("printed %q for %s", out.String(), raw)
	}
	for _, d := range []string{layer, config} {
		if digestOf(s.held[d]) != d || !bytes.Contains(raw, []byte(d)) {
			t.Errorf("%s is not the digest of what was pushed", d)
		}
	}
	if _, err := tar.NewReader(bytes.NewReader(s.held[layer])).Next(); err != nil || !bytes.Contains(s.held[config], []byte(layer)) {
		t.Errorf("the layer does not hold a file (%v), or %s does not name it", err, s.held[config])
	}
}

func TestAPushThatIsRefusedFails(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	for _, line := range []string{srv.URL + " a 10", srv.URL + " a ten", "x"} {
		if err := pushImages(t.Context(), strings.NewReader(line), io.Discard); err == nil {
			t.Errorf("%s was pushed", line)
		}
	}
}
