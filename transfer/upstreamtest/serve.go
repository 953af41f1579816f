package upstreamtest

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// A descriptor is the part of OCI's that images and referrers need.
type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       digest.Digest     `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// split parses a path of the registry. what is "manifests", "blobs" and so on, "" for
// a path that is not in a repository.
func split(path string) (repo, what, ref string) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return "", "", ""
	}
	if repo, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return repo, "tags", ""
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 3 {
		return "", "", ""
	}
	n := len(parts) - 2
	return strings.Join(parts[:n], "/"), parts[n], parts[n+1]
}

// serveRegistry answers a request to the registry.
func (r *Registry) serveRegistry(w *wire, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.fail(http.StatusMethodNotAllowed, "UNSUPPORTED")
		return
	}
	if req.URL.Path == "/v2/" {
		w.content("application/json", []byte("{}"))
		return
	}
	name, what, ref := split(req.URL.Path)
	repo := r.lookup(name)
	switch {
	case what == "":
		w.fail(http.StatusNotFound, "UNSUPPORTED")
	case repo == nil:
		w.fail(http.StatusNotFound, "NAME_UNKNOWN")
	case what == "manifests":
		r.serveManifest(w, req, repo, ref)
	case what == "blobs":
		r.serveBlob(w, repo, ref)
	case what == "tags":
		r.serveTags(w, req, name, repo)
	case what == "referrers":
		r.serveReferrers(w, req, repo, ref)
	default:
		w.fail(http.StatusNotFound, "UNSUPPORTED")
	}
}

// serveManifest answers with a manifest, or a redirect to it.
func (r *Registry) serveManifest(w *wire, req *http.Request, repo *repository, ref string) {
	d, tagged := repo.tags[ref]
	if !tagged {
		d = digest.Digest(ref)
	}
	m, ok := repo.manifests[d]
	switch {
	case strings.Contains(ref, ":") && d.Validate() != nil:
		w.fail(http.StatusBadRequest, "DIGEST_INVALID")
	case !ok || !accepts(req.Header.Values("Accept"), m.mediaType):
		w.fail(http.StatusNotFound, "MANIFEST_UNKNOWN")
	case r.opts.redirectManifests:
		r.redirect(w, "m", d)
	default:
		w.identify(d)
		w.content(m.mediaType, m.content)
	}
}

// accepts reads Accept as loosely as registries do: none accepts all, and quality does
// not count.
func accepts(accept []string, mediaType string) bool {
	if len(accept) == 0 {
		return true
	}
	for member := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		name, _, _ := strings.Cut(member, ";")
		if name = strings.TrimSpace(name); name == mediaType || name == "*/*" {
			return true
		}
	}
	return false
}

// serveBlob answers with a blob, or a redirect to it.
func (r *Registry) serveBlob(w *wire, repo *repository, ref string) {
	d := digest.Digest(ref)
	b, ok := repo.blobs[d]
	switch {
	case d.Validate() != nil:
		w.fail(http.StatusBadRequest, "DIGEST_INVALID")
	case !ok:
		w.fail(http.StatusNotFound, "BLOB_UNKNOWN")
	case r.opts.redirect:
		r.redirect(w, "b", d)
	default:
		w.identify(d)
		w.stream(b())
	}
}

// redirect sends the client to the CDN. It names the digest, since many CDNs do not.
func (r *Registry) redirect(w *wire, kind string, d digest.Digest) {
	path := "/storage/" + kind + "/" + d.Algorithm().String() + "/" + d.Encoded() + "/data"
	query := url.Values{"Expires": {strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)}}
	query.Set("Signature", r.links.sign(path, query.Get("Expires")))
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Location", r.scheme()+"://"+r.cdn.addr+path+"?"+query.Encode())
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// links are the CDN's: it serves those alone that this key has signed.
type links struct {
	mu  sync.Mutex
	key string
}

// sign returns the signature of a link.
func (l *links) sign(path, expires string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	mac := hmac.New(sha256.New, []byte(l.key))
	fmt.Fprintf(mac, "%s %s", path, expires)
	return hex.EncodeToString(mac.Sum(nil))
}

// RevokeLinks makes the CDN refuse all links given out so far, with 403.
func (l *links) RevokeLinks() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.key = rand.Text()
}

// serveCDN answers a request to the CDN.
func (r *Registry) serveCDN(w *wire, req *http.Request) {
	query := req.URL.Query()
	if req.Header.Get("Authorization") != "" {
		http.Error(w, "Only one auth mechanism allowed", http.StatusBadRequest)
		return
	}
	parts := strings.Split(req.URL.Path, "/")
	if len(parts) != 6 || query.Get("Signature") != r.links.sign(req.URL.Path, query.Get("Expires")) {
		http.Error(w, "SignatureDoesNotMatch", http.StatusForbidden)
		return
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(parts[3]), parts[4])
	b, m, ok := r.find(d)
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("ETag", `"`+parts[4]+`"`)
	if parts[2] == "b" && b != nil {
		w.stream(b())
		return
	}
	w.content(m.mediaType, m.content)
}

// serveTags answers with a page of a repository's tags.
func (r *Registry) serveTags(w *wire, req *http.Request, name string, repo *repository) {
	tags := slices.Sorted(maps.Keys(repo.tags))
	page, ok := paginate(w, req, tags, func(tag string) string { return tag })
	if ok {
		w.content("application/json", encode(map[string]any{"name": name, "tags": page}))
	}
}

// serveReferrers answers with a page of the manifests whose subject is ref.
func (r *Registry) serveReferrers(w *wire, req *http.Request, repo *repository, ref string) {
	subject := digest.Digest(ref)
	if subject.Validate() != nil {
		w.fail(http.StatusBadRequest, "DIGEST_INVALID")
		return
	}
	filter := req.URL.Query().Get("artifactType")
	all := repo.referrers(subject, filter)
	if filter != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	page, ok := paginate(w, req, all, func(d descriptor) string { return d.Digest.String() })
	if ok {
		w.content(TypeIndex, encode(map[string]any{"schemaVersion": 2, "mediaType": TypeIndex, "manifests": page}))
	}
}

// referrers returns the manifests whose subject is that digest, sorted by digest.
func (p *repository) referrers(subject digest.Digest, filter string) []descriptor {
	all := []descriptor{}
	for d, m := range p.manifests {
		var v struct {
			ArtifactType string
			Annotations  map[string]string
			Subject      descriptor
			Config       descriptor
		}
		if json.Unmarshal(m.content, &v) != nil || v.Subject.Digest != subject {
			continue
		}
		if v.ArtifactType == "" {
			v.ArtifactType = v.Config.MediaType
		}
		if filter != "" && filter != v.ArtifactType {
			continue
		}
		all = append(all, descriptor{m.mediaType, d, int64(len(m.content)), v.ArtifactType, v.Annotations})
	}
	slices.SortFunc(all, func(a, b descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return all
}

// paginate applies n and last to sorted items, and sets Link (RFC 8288) if more
// follow. If n is not valid, it answers the request itself and is not ok.
func paginate[T any](w *wire, req *http.Request, items []T, key func(T) string) ([]T, bool) {
	query := req.URL.Query()
	if last := query.Get("last"); last != "" {
		items = slices.DeleteFunc(items, func(item T) bool { return key(item) <= last })
	}
	if !query.Has("n") {
		return items, true
	}
	n, err := strconv.Atoi(query.Get("n"))
	if err != nil || n < 0 {
		w.fail(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID")
		return nil, false
	}
	if n == 0 || n >= len(items) {
		return items[:min(n, len(items))], true
	}
	query.Set("last", key(items[n-1]))
	w.Header().Set("Link", "<"+req.URL.Path+"?"+query.Encode()+`>; rel="next"`)
	return items[:n], true
}

// identifyServer sets the header by which a server of that kind shows what it
// is on each of its answers, refusals among them.
func (w *wire) identifyServer(server string) {
	switch server {
	case serverRegistry:
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	case serverToken:
		w.Header().Set("Content-Type", "application/json")
	}
}

// identify names the digest of what follows.
func (w *wire) identify(d digest.Digest) {
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("ETag", `"`+d.String()+`"`)
}

// content answers with a whole document.
func (w *wire) content(mediaType string, content []byte) {
	w.Header().Set("Content-Type", mediaType)
	if tag := w.Header().Get("ETag"); tag != "" && w.req.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.answer(http.StatusOK, content)
}

// fail answers with an OCI error.
func (w *wire) fail(status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.answer(status, encode(map[string]any{"errors": []map[string]string{{"code": code, "message": "upstreamtest: " + strings.ToLower(code)}}}))
}

// answer answers with this status and body.
func (w *wire) answer(status int, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if w.req.Method != http.MethodHead {
		_, _ = w.Write(bytes.Clone(body))
	}
}
