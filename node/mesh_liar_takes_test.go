package node

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// Content that a member offers is kept only if it is what the member said, and never
// takes more room than there is.
func TestMeshLiarOffers(t *testing.T) {
	t.Parallel()
	const bound = 8 * mib
	for name, answer := range map[string]func(*liar, http.ResponseWriter, *http.Request){
		"what it has not":     on(http.MethodGet, "blobs/", func(_ *liar, w http.ResponseWriter, r *http.Request) { honest(w, r) }),
		"what has no end":     on(http.MethodGet, "blobs/", func(_ *liar, w http.ResponseWriter, r *http.Request) { pour(w, r) }),
		"a redirect":          redirect("http://169.254.169.254/"),
		"wrong bytes":         on(http.MethodGet, "blobs/", func(_ *liar, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, small)) }),
		"more than there is":  hijack("HTTP/1.1 200 OK\r\nOci-Peer: 1\r\nContent-Length: 1000000000000\r\n\r\n", again(strings.Repeat("x", 64<<10))),
		"more than it sends":  hijack(fmt.Sprintf("HTTP/1.1 200 OK\r\nOci-Peer: 1\r\nContent-Length: %d\r\n\r\n", 4*mib), nil),
		"what is never there": on(http.MethodGet, "blobs/", silent),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := infiltrate(t, form{settings: settings{defaults: "cache_max_size: 8MiB"}}, 0, answer)
			one := l.c.nodes[0]
			p := l.client.Peer(one.node.cluster.Members().View().Self.ID)
			var wg sync.WaitGroup
			most := int64(0)
			for i := range 20 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
					defer cancel()
					ref := oci.Ref{Registry: l.c.up.Host(), Digest: digest.FromString(fmt.Sprint(name, i))}
					if err := p.Offer(ctx, ref, ""); err == nil {
						t.Error("the node kept what the liar offered")
					}
				})
			}
			done := make(chan struct{})
			go func() { wg.Wait(); close(done) }()
			for tick := time.NewTicker(20 * time.Millisecond); ; {
				most = max(most, diskOf(t, one.dir))
				select {
				case <-tick.C:
					continue
				case <-done:
				}
				tick.Stop()
				break
			}
			if most > bound+mib {
				t.Errorf("%d bytes were on the disk", most)
			}
			if log := one.log.String(); strings.Contains(log, " a bug") {
				t.Errorf("a bug: %s", log[strings.Index(log, " a bug")-200:])
			}
			b := l.c.blob(small)
			for l.owns(b.String()) {
				b = l.c.blob(small)
			}
			l.patiently(t, b, false)
		})
	}
}

// What a member offers, or says that it holds, makes nothing go by its size alone.
func TestMeshLiarsSizeEvictsNothing(t *testing.T) {
	t.Parallel()
	boast := hijack(fmt.Sprintf("HTTP/1.1 200 OK\r\nOci-Peer: 1\r\nContent-Length: %d\r\n\r\nxxxx", 30*mib), nil)
	for name, offers := range map[string]bool{"an offer": true, "a claim": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var kept atomic.Pointer[testBlob]
			l := infiltrate(t, form{settings: settings{defaults: "cache_max_size: 32MiB"}}, 0, func(l *liar, w http.ResponseWriter, r *http.Request) {
				switch {
				case kept.Load() == nil || strings.HasSuffix(r.URL.Path, kept.Load().String()):
					honest(w, r)
				case r.Method == http.MethodHead:
					w.Header().Set("Oci-Peer-Presence", "held")
					w.WriteHeader(http.StatusNoContent)
				default:
					boast(l, w, r)
				}
			})
			mine := func(size int64) testBlob {
				b := l.c.blob(size)
				for l.owns(b.String()) {
					b = l.c.blob(size)
				}
				return b
			}
			held, b := mine(20*mib), mine(100_000)
			kept.Store(&held)
			l.c.pull(0, held)
			l.asked.Store(0)
			if offers {
				p := l.client.Peer(l.c.nodes[0].node.cluster.Members().View().Self.ID)
				if err := p.Offer(t.Context(), oci.Ref{Registry: l.c.up.Host(), Digest: b.Digest}, ""); err == nil {
					t.Error("the node kept what the liar offered")
				}
			} else {
				l.c.tryPull(0, b.Digest) // it may be cut off
			}
			if l.asked.Load() == 0 {
				t.Error("the liar was not asked: nothing is shown")
			}
			if l.c.holders(held) != 1 {
				t.Error("a blob had to go for what never came")
			}
		})
	}
}

// diskOf returns how many bytes the blobs in a directory take.
func diskOf(t *testing.T, dir string) (n int64) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // files come and go
		}
		if info, err := d.Info(); err == nil && info.Size() > 64<<10 {
			n += info.Size()
		}
		return nil
	})
	return n
}

// A liar's answers take no more memory than honest answers.
func TestMeshLiarTakesNoMemory(t *testing.T) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, peak := m.HeapAlloc, uint64(0)
	l := infiltrate(t, form{}, 0, func(_ *liar, w http.ResponseWriter, r *http.Request) { pour(w, r) })
	for range 4 {
		b, _ := l.blob(small)
		l.patiently(t, b, true)
		l.c.json(0, "/_/stats", new(map[string]map[string]int64))
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
	}
	if peak > before+128*mib {
		t.Errorf("it takes %d MiB", (peak-before)/mib)
	}
}

// This shows which private content a hostile member can read. If it asks as a client
// does, it gets only what the registry vouches for in that repository. If it claims that
// the registry vouched for the content, it gets everything that the node holds.
// docs/security.md says so.
func TestMeshTraitorReadsWhatIsHeld(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: upstreamUser, Password: upstreamPassword}))
	l := infiltrateAt(t, up, form{settings: settings{
		registry: fmt.Sprintf("auth: {username: %s, password: %s}", upstreamUser, upstreamPassword),
	}}, 0, func(_ *liar, w http.ResponseWriter, r *http.Request) { honest(w, r) })
	img := up.PutImage(repo, "v1", random(1, 10_000))
	l.c.get(0, "/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
	l.c.tryPull(0, img.Layers[0]).wantWhole(t)
	id := l.c.nodes[0].node.cluster.Members().View().Self.ID
	l.c.await("the liar knows the node", func() bool { return l.client.Healthy(id) })
	p := l.client.Peer(id)
	open := func(repository string, terms mesh.Terms) error {
		s, err := p.Open(t.Context(), oci.Ref{Registry: up.Host(), Repository: repository, Digest: img.Layers[0]}, 0, terms)
		if err == nil {
			err = s.Body.Close()
		}
		return err
	}
	if err := open("other/app", mesh.Terms{}); oci.KindOf(err) != oci.NotFound {
		t.Errorf("of another repository: %v", err)
	}
	if _, _, err := p.Stat(t.Context(), oci.Ref{Registry: up.Host(), Repository: "other/app", Digest: img.Layers[0]}); err == nil {
		t.Error("its size was given")
	}
	if _, err := p.Manifest(t.Context(), oci.Ref{Registry: up.Host(), Repository: "other/app", Digest: img.Manifest}, mesh.Terms{}); err == nil {
		t.Error("a manifest of another repository")
	}
	if err := open(repo, mesh.Terms{}); err != nil {
		t.Errorf("of its own: %v", err)
	}
	if err := open("other/app", mesh.Terms{Held: true}); oci.KindOf(err) != oci.NotFound {
		t.Errorf("held content without a claimed grant: %v", err)
	}
	if err := open("other/app", mesh.Terms{Held: true, Vouched: true}); err != nil {
		t.Errorf("held content: %v", err)
	}
}
