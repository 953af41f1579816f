package node

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// identify sets what every answer about a blob or a manifest carries.
func (a *api) identify(w http.ResponseWriter, req oci.Request, d digest.Digest, way oci.Provenance) {
	h, own := w.Header(), []string{d.String(), etag(d)}
	h["Docker-Content-Digest"], h["Etag"], h["Cache-Status"] = own[0:1:1], own[1:2:2], a.hit
	if plain := (oci.Provenance{Origin: oci.Hit, At: way.At}); way != plain {
		h["Cache-Status"] = []string{way.CacheStatus(a.name, req.Tag != "")}
	}
	h["Accept-Ranges"] = byteRanges
	h["Cache-Control"] = a.cacheControl(req)
	if req.Tag != "" {
		h["Vary"] = onAccept
	}
	if way.Marked() {
		h.Set("Warning", fmt.Sprintf(`299 - "stale: %s/%s:%s was last checked before the registry failed"`, req.Registry, req.Repository, req.Tag))
	}
}

// markKept marks an error that is the registry's last answer, which stands in while the
// registry fails.
func (a *api) markKept(w http.ResponseWriter, req oci.Request, err error) {
	e, ok := oci.AsError(err)
	if !ok || e.Told.IsZero() {
		return
	}
	now, _ := oci.AsError(e.Err)
	h := w.Header()
	way := oci.Provenance{Stale: now}
	h.Set("Cache-Status", way.CacheStatus(a.name, true))
	if !way.Marked() {
		return
	}
	h.Set("Warning", fmt.Sprintf(`299 - "stale: %s/%s had no such content before the registry failed"`, req.Registry, req.Repository))
}

// etag is a digest as an entity tag. It is strong: the digest names the bytes.
func etag(d digest.Digest) string { return `"` + d.String() + `"` }

// year is the lifetime of what cannot change.
const year = 365 * 24 * time.Hour

// cacheControl lets others keep what a digest names. It does not let them share
// what needs a login, here or, as far as any member knows, upstream. What a tag
// means they have to ask each time.
func (a *api) cacheControl(req oci.Request) []string {
	switch {
	case req.Tag != "":
		return askAgain
	case a.gate.Open() && a.sites.public(req.Registry):
		return forAll
	default:
		return forOne
	}
}

// Values of headers that many answers share. Nobody changes them: http.Header.Set and Add
// put new ones in their place.
var (
	byteRanges = []string{"bytes"}
	onAccept   = []string{"Accept"}
	askAgain   = []string{"no-cache"}
	forAll     = []string{fmt.Sprintf("public, max-age=%d, immutable", int(year.Seconds()))}
	forOne     = []string{fmt.Sprintf("private, max-age=%d, immutable", int(year.Seconds()))}
	apiVersion = []string{"registry/2.0"}
	blobTypes  = []string{blobType}
	noSniffing = []string{"nosniff"}
	noScripts  = []string{"default-src 'none'; sandbox"}
	noReferrer = []string{"no-referrer"}
)

// unchanged reports whether the client has what d names (RFC 9110 section
// 13.1.2).
func unchanged(r *http.Request, d digest.Digest) bool {
	for _, line := range r.Header.Values("If-None-Match") {
		for t := range strings.SplitSeq(line, ",") {
			t = strings.TrimSpace(t)
			if t == "*" || strings.TrimPrefix(t, "W/") == etag(d) {
				return true
			}
		}
	}
	return false
}
