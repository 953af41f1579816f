package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A coldStore is an S3 server in memory with one bucket. .ci/e2e/archive.sh has a real one.
type coldStore struct {
	t   testing.TB
	url string

	mu      sync.Mutex
	objects map[string][]byte
	types   map[string]string
	asked   map[string]int // for blobs and manifests, by method
	down    bool
}

func newColdStore(t testing.TB) *coldStore {
	t.Helper()
	s := &coldStore{t: t, objects: map[string][]byte{}, types: map[string]string{}, asked: map[string]int{}}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

// settings are those of a node with the archive.
func (s *coldStore) settings(registry string) settings {
	return settings{registry: registry, top: fmt.Sprintf("archive: {endpoint: %q, bucket: cold, access_key: AK, secret_key: cold-sesame}", s.url)}
}

// ServeHTTP implements http.Handler.
func (s *coldStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	key := strings.TrimPrefix(r.URL.Path, "/cold/")
	if strings.Contains(key, "blobs/") {
		s.asked[r.Method]++
	}
	object, ok := s.objects[key]
	switch {
	case s.down || err != nil:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.Method == http.MethodPut:
		s.objects[key], s.types[key] = content, r.Header.Get("Content-Type")
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code></Error>")
	default:
		w.Header().Set("Content-Type", s.types[key])
		http.ServeContent(w, r, "", time.Now(), bytes.NewReader(object))
	}
}

// keys lists the blobs and manifests, and reports whether there are that many.
func (s *coldStore) keys(many int) (all []string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.objects {
		if strings.Contains(key, "blobs/") {
			all = append(all, key)
		}
	}
	return all, len(all) == many
}

// await waits for that many objects.
func (s *coldStore) await(many int) {
	s.t.Helper()
	testkit.Await(s.t, fmt.Sprintf("%d objects in the bucket", many), func() bool { _, ok := s.keys(many); return ok })
}

// change changes the bytes of all objects.
func (s *coldStore) change(to func([]byte) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, content := range s.objects {
		s.objects[key] = to(content)
	}
}

// count returns how many requests of a method came.
func (s *coldStore) count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[method]
}

// fail makes the server fail, or well again.
func (s *coldStore) fail(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// A node that lost its disk pulls by digest from the bucket while the registry is gone.
func TestAnImageOutlivesTheDiskAndTheRegistry(t *testing.T) {
	t.Parallel()
	up, cold := upstreamtest.New(t), newColdStore(t)
	layer := random(1, 3*mib)
	img := up.PutImage(repo, "v1", layer)
	p := newProxy(t, up, cold.settings(""))
	whole := p.get("/v2/" + repo + "/manifests/v1")
	whole.want(t, http.StatusOK)
	p.get(blobPath(img.Layers[0])).want(t, http.StatusOK)
	p.get(blobPath(img.Config)).want(t, http.StatusOK)
	cold.await(3)
	p.close()

	up.Down()
	p = newProxy(t, up, cold.settings("")) // with another disk
	p.do(http.MethodHead, "/v2/"+repo+"/manifests/"+img.Manifest.String()).want(t, http.StatusOK, "Docker-Content-Digest", img.Manifest.String(), "Content-Type", whole.Header.Get("Content-Type"))
	if a := p.get("/v2/" + repo + "/manifests/" + img.Manifest.String()); !bytes.Equal(a.body, whole.body) || a.Header.Get("Content-Type") != whole.Header.Get("Content-Type") {
		t.Errorf("status %d, %s", a.StatusCode, a.Header)
	}
	p.do(http.MethodHead, blobPath(img.Layers[0])).want(t, http.StatusOK, "Content-Length", fmt.Sprint(len(layer)))
	if a := p.get(blobPath(img.Layers[0])); !bytes.Equal(a.body, layer) {
		t.Errorf("status %d, %d bytes", a.StatusCode, len(a.body))
	}
	if s := p.stats()[up.Host()]; s["FromArchiveBytes"] != int64(len(layer)) || s["FromUpstreamBytes"] != 0 {
		t.Errorf("the figures are %v", s)
	}
	if n := cold.count(http.MethodPut); n != 3 {
		t.Errorf("%d puts", n)
	}
}

// tags reports whether the bucket has what that many tags mean.
func (s *coldStore) tags(many int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.objects {
		if strings.HasPrefix(key, "tags/") {
			many--
		}
	}
	return many == 0
}

// What a tag last meant outlives the disks, too, and is marked as stale. Of a private registry
// nobody else says that.
func TestATagOutlivesTheDiskAndTheRegistry(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		registry string
		words    int
		later    string // what the config says of the registry then
		status   int
		mark     string // of Cache-Status
	}{
		"public":             {"", 1, "", http.StatusOK, "detail=stale-if-error"},
		"offline from now":   {"", 1, "offline: true", http.StatusOK, "hit"},
		"private":            {"private: true", 0, "private: true", http.StatusBadGateway, ""},
		"private from now":   {"", 1, "private: true", http.StatusBadGateway, ""},
		"too old to be used": {"", 1, "stale_if_error: 0", http.StatusBadGateway, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up, cold := upstreamtest.New(t), newColdStore(t)
			up.PutImage(repo, "v1", random(7, 50_000))
			p := newProxy(t, up, cold.settings(test.registry))
			whole := p.get("/v2/" + repo + "/manifests/v1")
			whole.want(t, http.StatusOK)
			cold.await(1)
			testkit.Await(t, "the tag is in the bucket", func() bool { return cold.tags(test.words) })
			p.close()
			up.Down()
			p = newProxy(t, up, cold.settings(test.later))
			a := p.get("/v2/" + repo + "/manifests/v1")
			if a.want(t, test.status); a.StatusCode == http.StatusOK && (!bytes.Equal(a.body, whole.body) || !strings.Contains(a.Header.Get("Cache-Status"), test.mark)) {
				t.Errorf("%s: %q", a.Header, a.body)
			}
			if a := p.get("/v2/" + repo + "/manifests/v2"); a.StatusCode < http.StatusInternalServerError {
				t.Errorf("a tag that nobody knows: status %d", a.StatusCode)
			}
		})
	}
}

// What a private registry delivered is got from the bucket by that registry's word alone,
// and never under another registry's name.
func TestTheArchiveUnlocksNothing(t *testing.T) {
	t.Parallel()
	up, other, cold := upstreamtest.New(t, upstreamtest.Basic("me", "sesame")), upstreamtest.New(t), newColdStore(t)
	layer := random(2, 100_000)
	d := up.PutBlob(repo, layer)
	s := cold.settings("auth: {username: me, password: sesame}")
	s.more = fmt.Sprintf("  %q: {insecure: true}", other.Host())
	p := newProxy(t, up, s)
	p.get(blobPath(d)).want(t, http.StatusOK)
	cold.await(1)
	if keys, _ := cold.keys(1); !strings.HasPrefix(keys[0], "private/") {
		t.Errorf("the key is %s", keys[0])
	}
	p.close()

	p = newProxy(t, up, s)
	p.get("/v2/strangers/app/blobs/"+d.String()).wantError(t, http.StatusNotFound, "BLOB_UNKNOWN")
	p.get("/v2/"+repo+"/blobs/"+d.String()+"?ns="+other.Host()).wantError(t, http.StatusNotFound, "BLOB_UNKNOWN")
	if n := cold.count(http.MethodGet); n > 2 {
		t.Errorf("%d objects were asked for", n)
	}
	gets := up.Count(http.MethodGet, "/"+d.String())
	p.get(blobPath(d)).want(t, http.StatusOK)
	if up.Count(http.MethodGet, "/"+d.String()) != gets {
		t.Error("the registry vouched for it, and it came from there all the same")
	}
	p.close()

	up.Down()
	p = newProxy(t, up, s) // a new disk knows no word of the registry
	if a := p.get(blobPath(d)); a.StatusCode == http.StatusOK {
		t.Error("nobody vouched for it")
	}
}

// An offline registry's content may come from the bucket: the registry is not asked.
func TestTheArchiveOfAnOfflineRegistry(t *testing.T) {
	t.Parallel()
	up, cold := upstreamtest.New(t), newColdStore(t)
	img := up.PutImage(repo, "v1", random(3, 50_000))
	p := newProxy(t, up, cold.settings(""))
	p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
	p.get(blobPath(img.Layers[0])).want(t, http.StatusOK)
	cold.await(2)
	p.close()
	asked := len(up.Requests())
	p = newProxy(t, up, cold.settings("offline: true"))
	p.do(http.MethodHead, "/v2/"+repo+"/manifests/"+img.Manifest.String()).want(t, http.StatusOK)
	p.get("/v2/"+repo+"/manifests/"+img.Manifest.String()).want(t, http.StatusOK)
	p.do(http.MethodHead, blobPath(img.Layers[0])).want(t, http.StatusOK, "Content-Length", "50000")
	p.get(blobPath(img.Layers[0])).want(t, http.StatusOK)
	if a := p.get(blobPath(digest.FromString("nowhere"))); a.StatusCode == http.StatusOK {
		t.Error("what nobody has was served")
	}
	if n := len(up.Requests()) - asked; n != 0 {
		t.Errorf("the registry was asked %d times", n)
	}
}

// Wrong bytes in the bucket cost nobody a pull, and are replaced.
func TestWrongBytesInTheArchive(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func([]byte) []byte{
		"exchanged": func(b []byte) []byte { return bytes.Repeat([]byte{'x'}, len(b)) },
		"cut short": func(b []byte) []byte { return b[:len(b)/2] },
		"longer":    func(b []byte) []byte { return append(bytes.Clone(b), 'x') },
		"empty":     func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up, cold := upstreamtest.New(t), newColdStore(t)
			layers := [][]byte{random(4, 100_000), random(5, 6*mib)}
			img := up.PutImage(repo, "v1", layers...)
			for round := range 2 {
				p := newProxy(t, up, cold.settings(""))
				p.get("/v2/"+repo+"/manifests/"+img.Manifest.String()).want(t, http.StatusOK)
				for i, d := range img.Layers {
					a := p.get(blobPath(d))
					if !bytes.Equal(a.body, layers[i]) { // a large one is cut off, and asked for again
						if i == 0 || a.err == nil {
							t.Errorf("round %d, layer %d: status %d, %d bytes, %v", round, i, a.StatusCode, len(a.body), a.err)
						}
						a = p.get(blobPath(d))
					}
					if !bytes.Equal(a.body, layers[i]) {
						t.Errorf("round %d, layer %d: status %d, %d bytes, %v", round, i, a.StatusCode, len(a.body), a.err)
					}
				}
				cold.await(3)
				testkit.Await(t, "all objects are right", cold.right)
				p.close()
				cold.change(change)
			}
		})
	}
}

// right reports whether each object is what its name says.
func (s *coldStore) right() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, content := range s.objects {
		if strings.Contains(key, "blobs/") && !strings.HasSuffix(key, "/"+digest.FromBytes(content).Encoded()) {
			return false
		}
	}
	return true
}

// A bucket in trouble makes the node degraded, and costs no pull.
func TestHealthNamesTheArchive(t *testing.T) {
	t.Parallel()
	up, cold := upstreamtest.New(t), newColdStore(t)
	cold.fail(true)
	d := up.PutBlob(repo, random(6, 5000))
	p := newProxy(t, up, cold.settings(""))
	p.get(blobPath(d)).want(t, http.StatusOK)
	a := p.get("/_/health")
	var state struct{ Reasons []string }
	if err := json.Unmarshal(a.body, &state); err != nil || len(state.Reasons) != 1 || !strings.HasPrefix(state.Reasons[0], "archive") || strings.Contains(string(a.body), "sesame") {
		t.Errorf("health is %s, %v", a.body, err)
	}
	if text := string(p.get("/_/metrics").body); !strings.Contains(text, `oci_proxy_archive_objects_total{what="put"} 0`) || !strings.Contains(text, "oci_proxy_degraded 1") {
		t.Errorf("the metrics are %s", text)
	}
	if p.log.Has("cold-sesame") {
		t.Error("the log tells the secret")
	}
}

// In a mesh each object is put once, by its owner, whichever node was asked.
func TestOwnersPut(t *testing.T) {
	t.Parallel()
	cold := newColdStore(t)
	c := formCluster(t, 3, upstreamtest.New(t), func(int) form { return form{settings: cold.settings("")} })
	const blobs = 12
	for range blobs {
		b := c.blob(20_000)
		for i := range c.nodes {
			c.pull(i, b)
		}
	}
	testkit.Await(t, "all objects are in the bucket", func() bool { keys, _ := cold.keys(0); return len(keys) >= blobs })
	if heads, puts := cold.count(http.MethodHead), cold.count(http.MethodPut); heads > blobs || puts != blobs {
		t.Errorf("%d heads and %d puts for %d blobs", heads, puts, blobs)
	}
	owners := 0
	for i := range c.nodes {
		if text := string(c.get(i, "/_/metrics").body); !strings.Contains(text, `oci_proxy_archive_objects_total{what="put"} 0`) {
			owners++
		}
	}
	if owners < 2 {
		t.Errorf("%d nodes put something", owners)
	}
}
