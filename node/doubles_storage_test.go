package node

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
)

// A storage is where a registry keeps its blobs.
type storage struct {
	status  int
	at      []string // URLs before a blob's; each age has the next one. "": below a path of the registry's host
	getOnly bool     // links are signed for GET alone
	page    bool     // the redirect has a page in its body
	kind    string   // Content-Type of blobs
	refusal string   // the body of its 400 to credentials
}

// The bodies with which storage refuses credentials beside a link, and links that are not
// its own or have expired.
const (
	s3Credentials    = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified</Message></Error>`
	azureCredentials = "\ufeff" + `<?xml version="1.0" encoding="utf-8"?><Error><Code>InvalidAuthenticationInfo</Code><Message>Authentication information is not given in the correct format. Check the value of Authorization header.</Message></Error>`
	deadLink         = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>`
)

// says tells the manner to readers.
func (k storage) says() string {
	var hosts []string
	for _, at := range k.at {
		host := "a relative Location"
		if u, err := url.Parse(at); err == nil && u.Host != "" {
			host = u.Host
		}
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	parts := []string{fmt.Sprintf("blobs by %d to %s", k.status, strings.Join(hosts, ", then "))}
	if k.page {
		parts = append(parts, "with a page")
	}
	if k.getOnly {
		parts = append(parts, "links signed for GET alone")
	}
	if k.refusal != "" {
		parts = append(parts, "which answers 400 to credentials")
	}
	return strings.Join(parts, ", ")
}

// by makes storage a manner.
func (k storage) by() manner {
	return manner{k.says(), func(s *stage, note func(), next http.Handler) http.Handler {
		s.storage = func(w http.ResponseWriter, r *http.Request) { k.serve(s, w, r) }
		for _, at := range k.at {
			if u, err := url.Parse(at); err == nil && u.Host != "" && u.Host != s.host {
				s.net.host("https://"+u.Host, s.storage)
			}
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !blobs(r) || !s.holds(r.URL.Path) {
				next.ServeHTTP(w, r)
				return
			}
			note()
			w.Header().Set("Location", k.link(s, r))
			w.Header().Set("Docker-Content-Digest", r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])
			if k.page {
				say(w, k.status, htmlType, "<title>Redirecting...</title>")
				return
			}
			say(w, k.status, "", "")
		})
	}}
}

// atLinks answers at the links that lead to the registry's own host.
func (s *stage) atLinks(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.storage != nil && s.linked(hostOf(r)+r.URL.Path) != "" {
			s.storage(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostOf is the host that a request is for.
func hostOf(r *http.Request) string { return strings.TrimSuffix(r.Host, ":443") }

// link makes a link to the blob that r asks for.
func (k storage) link(s *stage, r *http.Request) string {
	age := s.era()
	at := k.at[age%len(k.at)]
	hex := r.URL.Path[strings.LastIndexByte(r.URL.Path, ':')+1:]
	to := at + "/" + hex[:2] + "/" + hex + "/data"
	u, err := url.Parse(to)
	if err != nil {
		panic(err) // a table of these tests is wrong
	}
	host := u.Host
	if host == "" {
		host = hostOf(r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links[host+u.Path] = r.URL.Path
	return to + "?Expires=600&Signature=" + sign(host+u.Path, age)
}

// sign is the signature of a link in an age.
func sign(place string, age int) string {
	mac := hmac.New(sha256.New, []byte(place))
	fmt.Fprint(mac, age)
	return fmt.Sprintf("%x", mac.Sum(nil))
}

// linked is the path of the blob that a link leads to, "" for none.
func (s *stage) linked(place string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[place]
}

// holds reports whether the registry has the blob at that path.
func (s *stage) holds(path string) bool {
	rec := httptest.NewRecorder()
	s.content.ServeHTTP(rec, httptest.NewRequest(http.MethodHead, path, nil))
	return rec.Code == http.StatusOK
}

// serve answers at the storage.
func (k storage) serve(s *stage, w http.ResponseWriter, r *http.Request) {
	place := hostOf(r) + r.URL.Path
	path := s.linked(place)
	switch {
	case r.Header.Get("Authorization") != "" && k.refusal != "":
		say(w, http.StatusBadRequest, "application/xml", k.refusal)
		return
	case path == "" || r.URL.Query().Get("Signature") != sign(place, s.era()), r.Method != http.MethodGet && k.getOnly:
		say(w, http.StatusForbidden, "application/xml", deadLink)
		return
	}
	r = r.Clone(r.Context())
	r.URL.Path, r.URL.RawQuery = path, ""
	s.content.ServeHTTP(&rewriter{ResponseWriter: w, change: func(_ int, h http.Header) {
		h["Docker-Content-Digest"], h["Docker-Distribution-Api-Version"], h["Content-Type"] = nil, nil, []string{k.kind}
	}}, r)
}

// sibling sends requests for manifests to another registry, where the repository has another
// name.
func sibling(status int, host, prefix string) manner {
	says := fmt.Sprintf("manifests by %d to %s, where repositories have another name", status, host)
	return manner{says, func(s *stage, note func(), next http.Handler) http.Handler {
		s.net.host("https://"+host, func(w http.ResponseWriter, r *http.Request) {
			r = r.Clone(r.Context())
			if path, ok := strings.CutPrefix(r.URL.Path, "/v2/"+prefix+"/"); ok {
				r.URL.Path = "/v2/" + path
				s.content.ServeHTTP(w, r)
				return
			}
			say(w, http.StatusNotFound, jsonType, ociError("NAME_UNKNOWN"))
		})
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			path, inside := strings.CutPrefix(r.URL.Path, "/v2/")
			if !inside || !manifests(r) {
				next.ServeHTTP(w, r)
				return
			}
			note()
			w.Header().Set("Location", "https://"+host+"/v2/"+prefix+"/"+path)
			say(w, status, htmlType, "<a href=\"x\">Temporary Redirect</a>.")
		})
	}}
}
