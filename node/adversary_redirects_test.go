package node

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// hops lists chains of redirects that try to carry a login to another host. The last
// host of a chain answers.
var hops = map[string][]string{
	"to another port":                {"https://reg.example.com:8443/x?Signature=1"},
	"to another host":                {"https://cdn.evil.net/x?Signature=1"},
	"to a sub-domain":                {"https://cdn.reg.example.com/x"},
	"to the site's sibling":          {"https://auth2.example.com/x"},
	"down to plain http":             {"http://reg.example.com/x"},
	"away and back":                  {"https://cdn.evil.net/x", "https://reg.example.com/v2/team/secret/blobs/x"},
	"to a host with a login in it":   {"https://robot:x@cdn.evil.net/x"},
	"to another host without scheme": {"//cdn.evil.net/x"},
}

func redirectAttacks() []attack {
	var all []attack
	for _, status := range []int{301, 302, 303, 307, 308} {
		for name, chain := range hops {
			all = append(all, attack{fmt.Sprintf("a registry redirects a blob by %d %s", status, name), "the login goes along, or anything in the clear", func(t *testing.T) {
				w := newWorld(t, settings{})
				w.net.others = along(chain, status, serveAnything)
				w.net.host("https://auth.example.com", giveToken)
				w.net.host("https://reg.example.com", along(append([]string{""}, chain...), status, challenge("https://auth.example.com/token")))
				w.pull()
				for _, v := range w.net.all() {
					if strings.HasPrefix(v.to, "http://") {
						t.Errorf("in the clear: %s", v)
					}
					if strings.Contains(v.path, "/secret/") && strings.Contains(v.header, "Authorization") {
						t.Errorf("on the way back: %s", v)
					}
				}
			}})
		}
	}
	for name, location := range map[string]string{
		"to loopback": "https://127.0.0.1/x", "to IPv6 loopback": "https://[::1]/x", "to a private address": "https://192.168.1.1/x",
		"to metadata": "http://169.254.169.254/latest/meta-data", "to metadata by https": "https://169.254.169.254/", "to localhost": "https://localhost:8443/x",
		"to a name inside": "https://minio.default.svc.cluster.local/x", "to a file": "file:///etc/shadow", "to gopher": "gopher://evil.net/x",
		"to a line break": "https://evil.net/\r\nSet-Cookie: x", "to nowhere": "", "to an open bracket": "https://[::1", "to itself": "/v2/team/app/blobs/" + helloDigest,
		"to a script": "javascript:alert(1)", "to itself under another name for ever": "https://reg.example.com:443/v2/team/app/blobs/" + helloDigest + "?x",
	} {
		all = append(all, attack{"a registry redirects " + name, "the node follows, for ever or at all", func(t *testing.T) {
			w := newWorld(t, settings{})
			w.net.host("https://reg.example.com", func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header()["Location"] = []string{location}
				rw.WriteHeader(http.StatusFound)
			})
			manifest, blob := w.pull()
			w.wantRefused(manifest)
			w.wantRefused(blob)
			if n := len(w.net.all()); n > 50 {
				t.Errorf("%d requests", n)
			}
		}})
		all = append(all, attack{"a registry has the client sent " + name, "the client is sent there", func(t *testing.T) {
			w := newWorld(t, settings{registry: "follow_redirects: false"})
			w.net.host("https://reg.example.com", func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header()["Location"] = []string{location}
				rw.WriteHeader(http.StatusFound)
			})
			if strings.HasPrefix(location, "https://reg.example.com") || strings.Contains(location, "\n") {
				return // it is a public host
			}
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := w.do(method, "/v2/team/app/blobs/"+helloDigest)
				if to := a.Header.Get("Location"); to != "" && !strings.HasPrefix(to, "https://reg.example.com") {
					t.Errorf("%s: sent to %s", method, to)
				}
			}
		}})
	}
	return append(all, attack{"a CDN asks for a login", "it gets one", func(t *testing.T) {
		w := newWorld(t, settings{})
		w.net.host("https://auth.example.com", giveToken)
		w.net.host("https://cdn.evil.net", challenge(""))
		w.net.host("https://reg.example.com", along([]string{"", "https://cdn.evil.net/x"}, 307, challenge("https://auth.example.com/token")))
		_, blob := w.pull()
		w.wantRefused(blob)
	}}, attack{"a CDN sends its page with cookies and a script", "the client gets any of it", func(t *testing.T) {
		w := newWorld(t, settings{})
		w.net.host("https://cdn.evil.net", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/html")
			http.SetCookie(rw, &http.Cookie{Name: "a", Value: "b", Expires: time.Now().Add(time.Hour)})
			_, _ = fmt.Fprint(rw, "<script>alert(1)</script>")
		})
		w.net.host("https://reg.example.com", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "https://cdn.evil.net/x", http.StatusTemporaryRedirect)
		})
		manifest, blob := w.pull()
		w.wantRefused(manifest)
		if strings.Contains(string(blob.body), "alert") && blob.err == nil {
			t.Error("a wrong blob came whole")
		}
	}})
}

// along redirects a request along the chain: each host redirects to the next. The last
// one, and any host that is not in the chain, answers by end. In a chain "" stands for a
// blob or manifest of the registry, which it redirects once it has seen a login.
func along(chain []string, status int, end http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i, at := range chain[:len(chain)-1] {
			if at == "" && strings.HasPrefix(r.URL.Path, "/v2/team/app/") && r.Header.Get("Authorization") != "" ||
				at != "" && strings.HasSuffix(at, r.Host+r.URL.Path) {
				w.Header().Set("Location", chain[i+1])
				w.WriteHeader(status)
				return
			}
		}
		end(w, r)
	}
}

// serveAnything serves "hello" at any path.
func serveAnything(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "hello") }
