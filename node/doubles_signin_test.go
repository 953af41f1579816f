package node

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// A tokens is how a registry lets people in by tokens.
type tokens struct {
	realm     string // as the challenge names it
	server    string // the token server's URL; "": realm
	service   string // "": the challenge has none
	scope     string // of the challenge, %s for the repository; "": it has none
	answer    string // the token server's, %q for the token
	page      bool   // the 401 is a page
	also      string // another challenge, after the right one
	denies    bool   // an expired token is 403 DENIED
	lateRealm string // of the challenge once a token has expired; that one gives nobody a token
	greets    bool   // the challenge comes at /v2/ alone; other bare requests are 403
}

// A pass is what a token is good for.
type pass struct {
	scope string
	age   int
}

// says tells the manner to readers.
func (k tokens) says() string {
	parts := []string{"tokens from " + strings.TrimPrefix(k.realm, "https://")}
	add := func(is bool, what string) {
		if is {
			parts = append(parts, what)
		}
	}
	add(k.server != "", "which is "+strings.TrimPrefix(k.server, "https://"))
	add(k.service == "", "no service")
	add(strings.ContainsAny(k.service, ":/"), "service `"+k.service+"`")
	add(k.scope == "", "no scope")
	add(k.scope != "" && k.scope != pullScope, "scope `"+strings.ReplaceAll(k.scope, "%s", "NAME")+"`")
	add(!strings.Contains(k.answer, "expires_in"), "their life is not told")
	add(!strings.Contains(k.answer, `"token"`), "in `access_token` alone")
	add(k.page, "the 401 is a page")
	add(k.also != "", "Basic is offered but the token needed")
	add(k.denies, "403 for expired ones")
	add(k.lateRealm != "", "once they have expired, another realm that gives none")
	add(k.greets, "asked for at `/v2/` alone, 403 elsewhere")
	return strings.Join(parts, ", ")
}

// pullScope is the usual scope of a challenge.
const pullScope = "repository:%s:pull"

// by makes tokens a manner.
func (k tokens) by() manner {
	return manner{k.says(), func(s *stage, note func(), next http.Handler) http.Handler {
		server, err := url.Parse(k.server)
		if k.server == "" {
			server, err = url.Parse(k.realm)
		}
		if err != nil {
			panic(err) // a table of these tests is wrong
		}
		host := strings.TrimSuffix(server.Host, ":443")
		if host != s.host {
			s.trusted = append(s.trusted, host)
			s.net.host("https://"+host, func(w http.ResponseWriter, r *http.Request) { k.give(s, server.Path, w, r) })
		}
		if k.lateRealm != "" {
			late, _ := url.Parse(k.lateRealm)
			s.net.host("https://"+late.Host, func(w http.ResponseWriter, _ *http.Request) {
				say(w, http.StatusUnauthorized, jsonType, ociError("UNAUTHORIZED"))
			})
		}
		own := strings.TrimPrefix(server.Path, s.path)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if host == s.host && strings.TrimSuffix(r.URL.Path, "/") == strings.TrimSuffix(own, "/") {
				k.give(s, own, w, r)
				return
			}
			k.letIn(s, note, w, r, next)
		})
	}}
}

// letIn passes a request on if it has a valid token.
func (k tokens) letIn(s *stage, note func(), w http.ResponseWriter, r *http.Request, next http.Handler) {
	header := r.Header.Get("Authorization")
	if strings.HasPrefix(header, "Basic ") {
		s.t.Errorf("the login is shown to a registry that wants tokens: %s", r.URL.Path)
	}
	repo := repoOf(r.URL.Path)
	s.mu.Lock()
	p, given := s.tokens[strings.TrimPrefix(header, "Bearer ")]
	fresh := given && p.age == s.age
	s.mu.Unlock()
	covers := strings.HasPrefix(p.scope, fmt.Sprintf(pullScope, repo)) || p.scope == k.scope && !strings.Contains(k.scope, "%s")
	switch {
	case fresh && covers:
		next.ServeHTTP(w, r)
	case given && !fresh && k.denies:
		note()
		say(w, http.StatusForbidden, jsonType, ociError("DENIED"))
	case k.greets && repo != "":
		say(w, http.StatusForbidden, jsonType, ociError("DENIED"))
	default:
		note()
		k.challenge(w, repo, given && !fresh)
	}
}

// challenge answers 401.
func (k tokens) challenge(w http.ResponseWriter, repo string, late bool) {
	ch := fmt.Sprintf("Bearer realm=%q", k.realm)
	if late && k.lateRealm != "" {
		ch = fmt.Sprintf("Bearer realm=%q", k.lateRealm)
	}
	if k.service != "" {
		ch += fmt.Sprintf(",service=%q", k.service)
	}
	if k.scope != "" && repo != "" {
		ch += fmt.Sprintf(",scope=%q", strings.ReplaceAll(k.scope, "%s", repo))
	}
	if late {
		ch += `,error="invalid_token"`
	}
	w.Header().Add("WWW-Authenticate", ch)
	if k.also != "" {
		w.Header().Add("WWW-Authenticate", k.also)
	}
	if k.page {
		say(w, http.StatusUnauthorized, "text/html", "<html><head><title>401 Authorization Required</title></head></html>")
		return
	}
	say(w, http.StatusUnauthorized, jsonType, ociError("UNAUTHORIZED"))
}

// give answers a request for a token.
func (k tokens) give(s *stage, path string, w http.ResponseWriter, r *http.Request) {
	user, password, shown := r.BasicAuth()
	scopes := r.URL.Query()["scope"]
	switch {
	case r.Method != http.MethodGet || strings.TrimSuffix(r.URL.Path, "/") != strings.TrimSuffix(path, "/"):
		say(w, http.StatusNotFound, htmlType, "<html>none</html>")
	case r.URL.Query().Get("service") != k.service:
		say(w, http.StatusBadRequest, jsonType, `{"message":"another service"}`)
	case shown != (s.user != "") || user != s.user || shown && password != s.password(), !shown && !s.guests:
		say(w, http.StatusUnauthorized, jsonType, `{"message":"no such login"}`)
	default:
		token, scope := rand.Text(), strings.Join(scopes, " ")
		s.mu.Lock()
		s.tokens[token] = pass{scope, s.age}
		s.mu.Unlock()
		say(w, http.StatusOK, jsonType, fmt.Sprintf(k.answer, token))
	}
}

// repoOf is the repository of a request to a registry, "" for none.
func repoOf(path string) string {
	name := strings.TrimPrefix(path, "/v2/")
	for _, what := range []string{"/manifests/", "/blobs/", "/tags/list"} {
		if repo, _, ok := strings.Cut(name, what); ok {
			return repo
		}
	}
	return ""
}

// basicLogin lets people in by Basic. The challenge is as the registry writes it, %s for the
// URL that was asked for. late is the status of an expired password.
func basicLogin(challenge string, late int, says string) manner {
	return manner{says, func(s *stage, note func(), next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, shown := r.BasicAuth()
			switch {
			case shown && user == s.user && password == s.password():
				next.ServeHTTP(w, r)
			case shown && late == http.StatusForbidden:
				note()
				say(w, late, jsonType, `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`)
			default:
				if !s.rotating {
					note()
				}
				w.Header()["Www-Authenticate"] = []string{strings.ReplaceAll(challenge, "%s", "https://"+r.Host+r.URL.Path)}
				say(w, http.StatusUnauthorized, "text/plain; charset=utf-8", "Not Authorized\n")
			}
		})
	}}
}
