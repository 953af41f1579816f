package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
	"oci-proxy/transfer/wait"
)

// list gets the page of the tags after last through the rig.
func (r *rig) list(last string) (body string, way oci.Provenance, err error) {
	query := oci.Query("")
	if last != "" {
		query = oci.Query("last=" + last)
	}
	return read(r.Tags(r.t.Context(), r.tag(""), query))
}

// read reads and closes a page.
func read(list *transfer.List, err error) (body string, way oci.Provenance, _ error) {
	if err != nil {
		return "", oci.Provenance{}, err
	}
	var b bytes.Buffer
	err = errors.Join(list.Send(&b), list.Close())
	return b.String(), list.Provenance, err
}

// A lister is an upstream with one page of every list, for tests of time.
type lister struct {
	fake
	page  string
	takes time.Duration
	fails *oci.Error // nil: it answers
	asked atomic.Int32
}

func (l *lister) Tags(ctx context.Context, _ oci.Ref, _ oci.Query, to oci.Sink) (*oci.Page, error) {
	l.asked.Add(1)
	if err := wait.For(ctx, l.takes); err != nil {
		return nil, err
	}
	if l.fails != nil {
		return nil, l.fails
	}
	to.Reset()
	_, err := to.Write([]byte(l.page))
	return &oci.Page{MediaType: "application/json", By: oci.Registry}, err
}

func (l *lister) Referrers(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	return l.Tags(ctx, ref, query, to)
}

const aList = `{"name":"team/app","tags":["v1"],"manifests":[]}`

// Whoever asks for a page while it is asked for shares the answer, at whatever node.
func TestAPageIsAskedForOnceForAll(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{1, 3} {
		testkit.Bubble(t, func(t *testing.T, dir string) {
			up := &lister{page: aList, takes: time.Second}
			m := fakeMesh(t, dir, nodes, up, grants.Site{})
			defer m.end()
			ref := fakeRef(digest.FromString("subject"))
			asks := []func(f *transfer.Fetcher) (*transfer.List, error){
				func(f *transfer.Fetcher) (*transfer.List, error) { return f.Tags(t.Context(), ref, "n=1&last=a") },
				func(f *transfer.Fetcher) (*transfer.List, error) { return f.Tags(t.Context(), ref, "last=a&n=1") },
				func(f *transfer.Fetcher) (*transfer.List, error) { return f.Tags(t.Context(), ref, "") },
				func(f *transfer.Fetcher) (*transfer.List, error) { return f.Referrers(t.Context(), ref, "") },
			}
			var collapsed atomic.Int32
			each(60*len(asks), func(i int) {
				body, way, err := read(asks[i%len(asks)](m.nodes[i%nodes].Fetcher))
				if err != nil || body != aList || way.Stale != nil {
					t.Errorf("%q, %+v, %v", body, way, err)
				}
				if way.Collapsed {
					collapsed.Add(1)
				}
			})
			if n := up.asked.Load(); n != 3 {
				t.Errorf("%d nodes: the registry was asked %d times for 3 pages", nodes, n)
			}
			if int(collapsed.Load()) < 60*len(asks)-3*nodes {
				t.Errorf("%d nodes: %d answers were shared", nodes, collapsed.Load())
			}
			if _, _, err := read(m.nodes[0].Tags(t.Context(), ref, "")); err != nil || up.asked.Load() != 4 {
				t.Errorf("a later request: asked %d times, %v", up.asked.Load(), err)
			}
		})
	}
}

// The last page serves for as long as stale_if_error after the registry sent it, and no
// longer at a node that got it from another.
func TestAPageServesForAsLongAsItMay(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		up := &lister{page: aList}
		m := fakeMesh(t, dir, 3, up, grants.Site{StaleIfError: time.Hour})
		defer m.end()
		tags := func(i int) (oci.Provenance, error) {
			_, way, err := read(m.nodes[i].Tags(t.Context(), aTag, ""))
			return way, err
		}
		if _, err := tags(1); err != nil {
			t.Fatal(err)
		}
		up.fails = failure(oci.Unavailable)
		<-time.After(30 * time.Minute)
		if way, err := tags(2); err != nil || way.Stale == nil {
			t.Errorf("%+v, %v", way, err)
		}
		<-time.After(29 * time.Minute)
		for i := range m.nodes {
			if way, err := tags(i); err != nil || way.CacheStatus("a", true) != "a; fwd=stale; detail=stale-if-error" {
				t.Errorf("node %d: %s, %v", i, way.CacheStatus("a", true), err)
			}
		}
		<-time.After(2 * time.Minute)
		for i := range m.nodes {
			_, err := tags(i)
			wantKind(t, err, oci.Unavailable)
		}
		up.fails = nil
		if way, err := tags(0); err != nil || way.Stale != nil {
			t.Errorf("once the registry answers: %+v, %v", way, err)
		}
		for _, n := range m.nodes {
			n.policy.StaleIfError = 0
		}
		up.fails = failure(oci.Timeout)
		_, err := tags(0)
		wantKind(t, err, oci.Timeout)
	})
}

// What passes brings the last page; what the registry itself says is final.
func TestWhichFailuresAPageStandsInFor(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		up := &lister{page: aList}
		m := fakeMesh(t, dir, 2, up, grants.Site{StaleIfError: time.Hour})
		defer m.end()
		for kind := oci.Unavailable; kind <= oci.Offline; kind++ {
			for by := oci.Nobody; by <= oci.Middlebox; by++ {
				up.fails = nil
				if _, _, err := read(m.nodes[1].Tags(t.Context(), aTag, "")); err != nil {
					t.Fatal(err)
				}
				failed := failure(kind)
				failed.By, failed.Status = by, 418
				up.fails = failed
				_, way, err := read(m.nodes[1].Tags(t.Context(), aTag, ""))
				final := (kind == oci.NotFound || kind == oci.Denied) && (by == oci.Registry || by == oci.TokenServer)
				mark := "a; fwd=stale; fwd-status=418; detail=stale-if-error"
				if kind == oci.Offline { // its operator does not want it to be asked
					mark = "a; hit"
				}
				if (err != nil) != final || err == nil && way.CacheStatus("a", true) != mark {
					t.Errorf("%v by %v: %s, %v", kind, by, way.CacheStatus("a", true), err)
				}
			}
		}
	})
}

// outages are ways in which a registry fails.
var outages = map[string]func(r *upstreamtest.Registry){
	"down":       func(r *upstreamtest.Registry) { r.Down() },
	"a firewall": func(r *upstreamtest.Registry) { r.Fault(upstreamtest.FirewallPage()) },
	"a portal":   func(r *upstreamtest.Registry) { r.Fault(upstreamtest.PortalPage()) },
	"no route": func(r *upstreamtest.Registry) {
		r.Fault(upstreamtest.Fault{Status: 404, Body: "default backend - 404", Header: http.Header{"Docker-Distribution-Api-Version": nil, "Content-Type": {"text/plain"}}})
	},
	"errors in 200": func(r *upstreamtest.Registry) {
		r.Fault(upstreamtest.Fault{Status: 200, Body: `{"errors":[{"code":"UNKNOWN"}]}`})
	},
	"nothing": func(r *upstreamtest.Registry) { r.Fault(upstreamtest.Fault{Status: 200}) },
	"null":    func(r *upstreamtest.Registry) { r.Fault(upstreamtest.Fault{Status: 200, Body: "null"}) },
	"half a list": func(r *upstreamtest.Registry) {
		r.Fault(upstreamtest.Fault{Status: 200, Body: `{"name":"a","tags":["v1"`, Header: http.Header{"Content-Type": {"application/json"}}})
	},
}

// While a registry fails, in whatever way, every node serves the last page, also after all
// of them were started again, and if the one that asked the registry is gone.
func TestPagesOutliveTheRegistry(t *testing.T) {
	t.Parallel()
	for name, fail := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "down" {
				testkit.SkipShort(t) // it waits for retries
			}
			s := setup{private: all, policy: grants.Site{StaleIfError: time.Hour}}
			m := newMesh(t, 3, s)
			for _, n := range m.nodes {
				n.routes(func(string) []int { return []int{1, 2} })
			}
			img := m.registry.PutImage(repo, "v1", random(1, 10))
			subject := m.registry.PutManifest(repo, "", upstreamtest.TypeManifest, fmt.Appendf(nil, `{"schemaVersion":2,"artifactType":"a/b","subject":{"digest":%q}}`, img.Manifest))
			list := func(i int) (tags, referrers string, stale bool) {
				t.Helper()
				n := m.nodes[i]
				tags, way, err := n.list("")
				referrers, ways, errs := read(n.Referrers(t.Context(), n.ref(img.Manifest), ""))
				if err != nil || errs != nil || !strings.Contains(tags, `"v1"`) || !strings.Contains(referrers, subject.String()) || (way.Stale == nil) != (ways.Stale == nil) {
					t.Fatalf("node %d: %s %+v %v; %s %+v %v", i, tags, way, err, referrers, ways, errs)
				}
				return tags, referrers, way.Stale != nil
			}
			if _, _, stale := list(0); stale {
				t.Error("what the registry has just sent is marked as stale")
			}
			fail(m.registry)
			for _, i := range []int{0, 1, 2} {
				if _, _, stale := list(i); !stale {
					t.Errorf("node %d: it is not marked", i)
				}
			}
			m.restart(2, s)
			m.nodes[1].fails.Store(&fault{dead: true})
			if _, _, stale := list(2); !stale {
				t.Error("after a restart it is not marked")
			}
		})
	}
}

// restart takes a node down and starts it again on what its disk has.
func (m *meshRig) restart(i int, s setup) {
	n := m.nodes[i]
	s.dir, s.registry, s.mesh, s.look = n.dir, m.registry, n, 100*time.Millisecond
	n.rig.end()
	n.rig = newRig(m.t, s)
}

// A page is the registry's to take back. What it says of a list takes nothing else back.
func TestARegistryTakesAPageBack(t *testing.T) {
	t.Parallel()
	for _, status := range []int{401, 403, 404} {
		for name, private := range map[string]func(string) bool{"public": nil, "private": all} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				t.Parallel()
				testkit.SkipShort(t) // it waits for retries
				m := newMesh(t, 3, setup{private: private, policy: grants.Site{StaleIfError: time.Hour}})
				img := m.registry.PutImage(repo, "v1", random(1, 10))
				for _, n := range m.nodes {
					if _, _, err := n.list(""); err != nil {
						t.Fatal(err)
					}
					n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
				}
				m.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/tags/list"}, Status: status, Body: `{"errors":[{"code":"DENIED"}]}`, Header: http.Header{"Content-Type": {"application/json"}}})
				if _, _, err := m.nodes[1].list(""); err == nil {
					t.Fatal("it is listed")
				}
				m.registry.ClearFaults()
				m.registry.Down()
				for i, n := range m.nodes {
					body, way, err := n.list("")
					e, _ := oci.AsError(err)
					if err == nil || (e.Kind == oci.NotFound) != (status == 404) {
						t.Errorf("node %d: %s %+v, %v", i, body, way, err)
					}
					n.mustFind(n.tag("v1"), img.ManifestBytes, upstreamtest.TypeManifest)
				}
			})
		}
	}
}

// A private registry's pages are not for those who may not have its content.
func TestPrivatePagesAreGuarded(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t) // it waits for retries
	var private atomic.Bool
	m := newMesh(t, 3, setup{private: func(string) bool { return private.Load() }, policy: grants.Site{StaleIfError: time.Hour}})
	img := m.registry.PutImage(repo, "v1", random(1, 10))
	if _, _, err := m.nodes[1].list(""); err != nil {
		t.Fatal(err)
	}
	private.Store(true)
	m.registry.Down()
	for i, n := range m.nodes {
		if body, _, err := n.list(""); err == nil {
			t.Errorf("node %d: a list from the time before the registry was private: %s", i, body)
		}
	}
	m.registry.Up()
	for i, n := range m.nodes {
		if _, _, err := n.list(""); err != nil {
			t.Errorf("node %d: %v", i, err)
		}
	}
	m.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/manifests/"}, Status: 403, Body: `{"errors":[{"code":"DENIED"}]}`, Header: http.Header{"Content-Type": {"application/json"}}})
	for _, n := range m.nodes {
		if _, err := n.Manifest(t.Context(), n.ref(img.Manifest), nil, false); err == nil {
			t.Error("a refused manifest is served")
		}
	}
	m.registry.Down()
	for i, n := range m.nodes {
		if body, _, err := n.list(""); err == nil {
			t.Errorf("node %d: a list of a repository that was refused: %s", i, body)
		}
	}
}

// A page that the registry breaks off is asked for again. What came does not count.
func TestABrokenPageIsAskedForAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{policy: grants.Site{StaleIfError: time.Hour}})
	for i := range 200 {
		r.registry.PutManifest(repo, fmt.Sprintf("%0120d", i), upstreamtest.TypeManifest, []byte(`{"schemaVersion":2}`))
	}
	whole, _, err := r.list("")
	if err != nil {
		t.Fatal(err)
	}
	r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/tags/list"}, CutAfter: 20_000, Times: 1})
	if body, way, err := r.list(""); err != nil || body != whole || way.Stale != nil {
		t.Errorf("%d bytes, %+v, %v", len(body), way, err)
	}
}
