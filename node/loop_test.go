package node

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// An entrance is a load balancer: a name that leads to whatever it is set to.
type entrance struct {
	host string
	to   atomic.Pointer[http.Handler]
	came atomic.Int64 // requests
	via  atomic.Value // of the last one
}

func newEntrance(t *testing.T) *entrance {
	e := new(entrance)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.came.Add(1)
		e.via.Store(strings.Join(r.Header.Values("Via"), ", "))
		r.Header.Add("Via", "1.1 balancer (fast one), HTTP/1.0 other") // other hops say who they are, too
		(*e.to.Load()).ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	e.host = strings.TrimPrefix(srv.URL, "http://")
	return e
}

func (e *entrance) leadTo(h http.Handler) { e.to.Store(&h) }

// config is a further registry at the entrance.
func (e *entrance) config() string { return fmt.Sprintf("  %q: {insecure: true}", e.host) }

// name is the entrance as a path has it.
func (e *entrance) name() string { return strings.ReplaceAll(e.host, ":", "_") }

// reads are what a client may ask for below a name.
func reads(name string) []string {
	return []string{
		"/v2/" + name + "/manifests/v1", "/v2/" + name + "/manifests/" + helloDigest, "/v2/" + name + "/blobs/" + helloDigest,
		"/v2/" + name + "/tags/list", "/v2/" + name + "/referrers/" + helloDigest,
	}
}

// A name that leads back to the node ends at the first turn, however deep it is.
func TestALoopEndsAtTheFirstTurn(t *testing.T) {
	t.Parallel()
	e := newEntrance(t)
	p := newProxy(t, upstreamtest.New(t), settings{more: e.config()})
	e.leadTo(p.node.Handler())
	for _, depth := range []int{1, 2, 10} {
		for _, path := range reads(strings.Repeat(e.name()+"/", depth) + "team/app") {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				before := e.came.Load()
				a := p.do(method, path)
				if n := e.came.Load() - before; n != 1 {
					t.Errorf("%s %s went around %d times", method, path, n)
				}
				if a.StatusCode != http.StatusLoopDetected {
					t.Errorf("%s %s: status %d: %s", method, path, a.StatusCode, a.body)
				}
				if method == http.MethodGet && (!strings.Contains(string(a.body), e.host+": ") || !strings.Contains(string(a.body), "default_registry, alias and the DNS")) {
					t.Errorf("%s: %s", path, a.body)
				}
			}
		}
	}
}

func TestADefaultRegistryThatIsTheNodeItself(t *testing.T) {
	t.Parallel()
	e := newEntrance(t)
	n, log := newNodeOf(t, fmt.Sprintf("default_registry: %q\ndefaults: {cache_dir: %q}\nregistries:\n%s\n", e.host, t.TempDir(), e.config()))
	p := serving(t, n, log)
	e.leadTo(n.Handler())
	for i, path := range reads("team/app") {
		if a := p.get(path); a.StatusCode != http.StatusLoopDetected || e.came.Load() != int64(i+1) {
			t.Errorf("%s: status %d after %d turns: %s", path, a.StatusCode, e.came.Load(), a.body)
		}
	}
}

// A token server or a storage at the node itself is a loop as well.
func TestRealmsAndRedirectsThatLeadBack(t *testing.T) {
	t.Parallel()
	e := newEntrance(t)
	for name, answer := range map[string]http.HandlerFunc{
		"a realm": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/v2/%s/team/app/manifests/v1",service="x"`, e.host, e.name()))
			w.WriteHeader(http.StatusUnauthorized)
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, fmt.Sprintf("http://%s/v2/%s%s", e.host, e.name(), strings.TrimPrefix(r.URL.Path, "/v2")), http.StatusTemporaryRedirect)
		},
	} {
		registry := httptest.NewServer(answer)
		t.Cleanup(registry.Close)
		host := strings.TrimPrefix(registry.URL, "http://")
		p := newProxy(t, upstreamtest.New(t), settings{more: e.config() + fmt.Sprintf("\n  %q: {insecure: true}", host)})
		e.leadTo(p.node.Handler())
		for _, path := range reads(strings.ReplaceAll(host, ":", "_") + "/team/app") {
			before := e.came.Load()
			if a := p.get(path); a.StatusCode < 500 || e.came.Load()-before > 2 { // once by HEAD, once by GET
				t.Errorf("%s, %s: status %d after %d turns: %s", name, path, a.StatusCode, e.came.Load()-before, a.body)
			}
		}
	}
}

// A client that says it is somebody else is believed: nobody can break the pulls of
// others by it.
func TestAForgedViaHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	up.PutImage(repo, "v1", random(1, 100))
	p := newProxy(t, up, settings{})
	path := "/v2/" + repo + "/manifests/v1"
	own := p.node.mark()
	for via, status := range map[string]int{
		"1.1 oci-proxy": 200, "1.1 oci-proxy-0123456789abcdef": 200, own: 200, "1.1 x, 1.0 fred (" + own + ")": 200, "": 200, ",,": 200,
		strings.Repeat("1.1 x, ", 1000): 200,
		"1.1 " + own:                    508, "HTTP/1.1 " + own + " (x)": 508, "1.1 a,1.1\t" + own + " , 1.1 b": 508,
	} {
		if a := p.get(path, "Via", via); a.StatusCode != status {
			t.Errorf("%.60q: status %d, want %d", via, a.StatusCode, status)
		}
		p.get(path).want(t, 200)
	}
	for _, r := range up.Requests() {
		if via := r.Header["Via"]; len(via) != 1 || via[0] != "1.1 "+own {
			t.Errorf("upstream was told %q", via)
		}
	}
}

// A chain of caches is no loop.
func TestAChainOfCachesWorks(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 100))
	last := newProxy(t, up, settings{})
	e := newEntrance(t)
	e.leadTo(last.node.Handler())
	first := newProxy(t, upstreamtest.New(t), settings{more: e.config()})
	for _, what := range []string{"manifests/v1", "blobs/" + img.Config.String(), "tags/list"} {
		first.get("/v2/"+e.name()+"/"+repo+"/"+what).want(t, 200)
	}
	if via := e.via.Load(); via != "1.1 "+first.node.mark() || first.node.mark() == last.node.mark() {
		t.Errorf("the second cache was told %q", via)
	}
}

// The balancer of a cluster leads from one member to another: that is a loop, too.
func TestALoopThroughAnotherMember(t *testing.T) {
	t.Parallel()
	e := newEntrance(t)
	c := formCluster(t, 2, upstreamtest.New(t), func(int) form { return form{settings: settings{more: e.config()}} })
	e.leadTo(c.nodes[1].node.Handler())
	for _, path := range reads(e.name() + "/" + e.name() + "/team/app") {
		before := e.came.Load()
		resp, err := c.client.Get("http://" + c.nodes[0].client + path)
		if err != nil {
			t.Fatal(err)
		}
		if a := read(resp); a.StatusCode != http.StatusLoopDetected || e.came.Load()-before != 1 {
			t.Errorf("%s: status %d after %d turns: %s", path, a.StatusCode, e.came.Load()-before, a.body)
		}
	}
}
