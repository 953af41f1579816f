package node

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// realms lists realms that a registry names so that the node shows credentials to another
// host, or asks a host that it must not ask. Every host answers with a token.
var realms = map[string]string{
	"at another site":                        "https://auth.evil.net/token",
	"at a name that begins like it":          "https://reg.example.com.evil.net/token",
	"at a name that ends like it":            "https://evilexample.com/token",
	"at a name with it as a label":           "https://example.com.reg.net/token",
	"at another site's port":                 "https://evil.net:8443/token",
	"of the same site by plain http":         "http://auth.example.com/token",
	"of the parent domain by plain http":     "http://example.com/token",
	"of its own other port by plain http":    "http://reg.example.com:8080/token",
	"with its own name as the user":          "https://reg.example.com@evil.net/token",
	"with its own name as user and password": "https://reg.example.com:443@evil.net/token",
	"with a backslash":                       `https://evil.net\\@reg.example.com/token`,
	"without a scheme":                       "//evil.net/token",
	"in upper case":                          "HTTPS://EVIL.NET/token",
	"with a full-width slash":                "https://evil.net／.example.com/token",
	"with a full-width dot":                  "https://evil．net/token",
	"at loopback":                            "https://127.0.0.1/token",
	"at loopback's other port":               "https://127.0.0.1:8443/token",
	"at loopback by plain http":              "http://127.0.0.1:8080/token",
	"at IPv6 loopback":                       "https://[::1]/token",
	"at mapped loopback":                     "https://[::ffff:127.0.0.1]/token",
	"at a private address":                   "https://10.0.0.5/token",
	"at localhost":                           "https://localhost/token",
	"at a name of one label":                 "https://vault/v1/secret",
	"at the metadata service":                "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
	"at the metadata service by https":       "https://169.254.169.254/latest",
	"at the metadata service by its name":    "https://metadata.google.internal/computeMetadata/v1/",
	"at an address in decimal":               "https://2130706433/token",
	"at an address in octal":                 "https://0177.0.0.1/token",
	"at an address in hexadecimal":           "https://0x7f.0x1/token",
	"at a name of the cluster":               "https://kubernetes.default.svc.cluster.local/token",
	"by ftp":                                 "ftp://evil.net/token",
	"by gopher":                              "gopher://evil.net:70/_GET%20/",
	"of a file":                              "file:///etc/passwd",
	"of script":                              "javascript:alert(1)",
	"with a line break":                      "https://evil.net/\r\nX-Evil: 1",
	"with a trailing dot":                    "https://evil.net./token",
}

func tokenAttacks() []attack {
	var all []attack
	for name, realm := range realms {
		all = append(all, attack{"a registry names a realm " + name, "the credentials go there", func(t *testing.T) {
			w := newWorld(t, settings{})
			w.net.others = giveThe("stolen")
			w.net.host("https://reg.example.com", challenge(realm))
			manifest, blob := w.pull()
			w.wantRefused(manifest)
			w.wantRefused(blob)
		}})
	}
	return append(all, append(realmAttacks(), strangerAttacks()...)...)
}

// realmAttacks come from token servers, and from registries that change.
func realmAttacks() []attack {
	home := "https://auth.example.com/token"
	var all []attack
	for name, to := range map[string]string{
		"to another site":       "https://evil.net/token",
		"to another port":       "https://auth.example.com:8443/token",
		"to the site's sibling": "https://ads.example.com/token",
		"down to plain http":    "http://auth.example.com/token",
		"to loopback":           "https://127.0.0.1/token",
		"to metadata":           "http://169.254.169.254/token",
		"to itself, for ever":   home,
	} {
		all = append(all, attack{"a token server redirects " + name, "the credentials go along", func(t *testing.T) {
			w := newWorld(t, settings{})
			w.net.others = giveThe("stolen")
			w.net.host("https://reg.example.com", challenge(home))
			w.net.host("https://auth.example.com", func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, to, http.StatusTemporaryRedirect) })
			_, blob := w.pull()
			w.wantRefused(blob)
		}})
	}
	return append(all,
		attack{"a registry asks for Basic in front of a Bearer of its own", "the login goes to a Bearer realm elsewhere", func(t *testing.T) {
			w := newWorld(t, settings{})
			w.net.others = giveThe("stolen")
			w.net.host("https://reg.example.com", func(rw http.ResponseWriter, r *http.Request) {
				rw.Header()["Www-Authenticate"] = []string{`Basic realm="https://evil.net/", Bearer realm="https://evil.net/t"`, `Bearer realm="https://evil2.net/t"`}
				rw.WriteHeader(http.StatusUnauthorized)
			})
			_, blob := w.pull()
			w.wantRefused(blob)
		}},
		attack{"a registry moves its realm to another site once it has a login", "what was for the first goes to the second", func(t *testing.T) {
			w := newWorld(t, settings{})
			w.net.others = giveThe("stolen")
			w.net.host("https://auth.example.com", giveToken)
			w.net.host("https://reg.example.com", challenge(home))
			_, blob := w.pull()
			w.wantHello(blob)
			w.net.host("https://reg.example.com", func(rw http.ResponseWriter, r *http.Request) {
				r.Header.Del("Authorization") // every token is invalid by now
				challenge("https://auth.evil.net/token")(rw, r)
			})
			w.wantRefused(w.ask(http.MethodGet, "/v2/team/app/manifests/v2"))
		}},
		attack{"a registry puts further parameters into service and scope", "the token request says what it did not", func(t *testing.T) {
			w := newWorld(t, settings{})
			w.net.host("https://auth.example.com", giveToken)
			w.net.host("https://reg.example.com", func(rw http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "" {
					rw.Header().Set("WWW-Authenticate", `Bearer realm="`+home+`",service="s&scope=repository:root:*#",scope="repository:team/app:pull&account=root"`)
					rw.WriteHeader(http.StatusUnauthorized)
					return
				}
				serveHello(rw, r)
			})
			_, blob := w.pull()
			w.wantHello(blob)
			for _, v := range w.net.all() {
				if strings.HasPrefix(v.to, "https://auth") && (strings.Contains(v.query, "&account=") || strings.Count(v.query, "scope=") != 1) {
					t.Errorf("asked for %s", v.query)
				}
			}
		}},
		attack{"a token server gives a token that breaks the header", "a header of its making is sent", func(t *testing.T) {
			w := newWorld(t, settings{})
			w.net.host("https://auth.example.com", func(rw http.ResponseWriter, _ *http.Request) {
				_, _ = fmt.Fprint(rw, `{"token":"a\r\nX-Evil: 1\r\nb"}`)
			})
			w.net.host("https://reg.example.com", challenge(home))
			_, blob := w.pull()
			w.wantRefused(blob)
			for _, v := range w.net.all() {
				if strings.Contains(v.header, "X-Evil") {
					t.Error(v)
				}
			}
		}},
		attack{"a token server refuses by a page with a script", "the page gets to the client", func(t *testing.T) {
			w := newWorld(t, settings{})
			w.net.host("https://auth.example.com", func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", "text/html")
				rw.WriteHeader(http.StatusForbidden)
				_, _ = fmt.Fprint(rw, "<script>alert(1)</script>")
			})
			w.net.host("https://reg.example.com", challenge(home))
			manifest, _ := w.pull()
			w.wantRefused(manifest)
			if strings.Contains(string(manifest.body), "alert") {
				t.Errorf("%s", manifest.body)
			}
		}},
	)
}

// strangerAttacks come from registries that nobody configured: a client chose them.
func strangerAttacks() []attack {
	evil := "/v2/reg.evil.net/team/app/blobs/" + helloDigest
	stranger := func(name, never, realm string) attack {
		return attack{"a registry that a client chose " + name, never, func(t *testing.T) {
			w := newWorld(t, settings{})
			w.places[robotsToken] = "https://reg.example.com:443 https://reg.evil.net:443" // given to everybody, without a login
			w.net.others = giveToken
			w.net.host("https://reg.example.com", challenge("https://auth.example.com/token"))
			_, blob := w.pull() // now the node has a token that could be stolen
			w.wantHello(blob)
			before := len(w.net.all())
			w.net.host("https://reg.evil.net", challenge(realm))
			w.ask(http.MethodGet, evil)
			for _, v := range w.net.all()[before:] {
				if strings.Contains(v.header, "Basic ") {
					t.Errorf("credentials at\n%s", v)
				}
			}
		}}
	}
	return []attack{
		stranger("asks for a login", "it gets that of another", ""),
		stranger("names another's token server", "that is asked with the other's login", "https://auth.example.com/token"),
		stranger("names another registry as its token server", "that is asked with the other's login", "https://reg.example.com/token"),
		stranger("names a token server inside", "that is asked", "https://10.0.0.1/token"),
		stranger("names a token server on another port", "that is asked", "https://auth.evil.net:8443/token"),
		stranger("names a token server on plain http", "that is asked", "http://auth.evil.net/token"),
		{"an insecure registry that speaks TLS names its site's token server on plain http", "the login is shown in the clear", func(t *testing.T) {
			w := newWorld(t, settings{registry: "insecure: true, auth: {username: robot, password: " + robotsPassword + "}"})
			w.net.host("http://auth.example.com", giveThe("stolen"))
			w.net.host("https://reg.example.com", challenge("http://auth.example.com/token"))
			_, blob := w.pull()
			w.wantRefused(blob)
		}},
		{"an insecure registry turns from TLS to plain http", "a token made for TLS is shown in the clear", func(t *testing.T) {
			w := newWorld(t, settings{registry: "insecure: true, auth: {username: robot, password: " + robotsPassword + "}"})
			w.net.host("https://auth.example.com", giveToken)
			w.net.host("https://reg.example.com", challenge("https://auth.example.com/token"))
			_, blob := w.pull()
			w.wantHello(blob)
			w.net.mu.Lock()
			delete(w.net.hosts, "https://reg.example.com:443")
			w.net.mu.Unlock()
			for _, at := range []string{"http://reg.example.com:443", "http://reg.example.com"} {
				w.net.host(at, challenge("https://auth.example.com/token"))
			}
			w.net.host("https://auth.example.com", giveThe("another"))
			w.net.secure.CloseClientConnections()
			w.ask(http.MethodGet, "/v2/team/app/manifests/v2")
			if !w.visited("http://reg.example.com") {
				t.Error("the registry was not asked by plain HTTP")
			}
		}},
	}
}
