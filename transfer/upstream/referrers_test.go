package upstream

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"oci-proxy/transfer/oci"
)

// TestRegistriesWithoutReferrers: whatever they answer, clients hear 404 and look for the
// tag that stands in. An outage is told from that by the manifest.
func TestRegistriesWithoutReferrers(t *testing.T) {
	t.Parallel()
	const api, version = "Docker-Distribution-Api-Version", "registry/2.0"
	apiError := func(status int) *http.Response {
		return reply(status, `{"errors":[{"code":"UNSUPPORTED"}]}`, "Content-Type", "application/json")
	}
	answers := map[string]struct {
		list func() *http.Response
		by   oci.Party
	}{
		"404 of the registry":          {func() *http.Response { return apiError(404) }, oci.Registry},
		"406 (Artifactory, ggcr#1962)": {func() *http.Response { return reply(406, "", api, version) }, oci.Registry},
		"400 (Quay, quay#3071)":        {func() *http.Response { return apiError(400) }, oci.Registry},
		"405":                          {func() *http.Response { return apiError(405) }, oci.Registry},
		"501":                          {func() *http.Response { return reply(501, "", api, version) }, oci.Registry},
		"404 in plain text":            {func() *http.Response { return reply(404, "404 page not found\n", "Content-Type", "text/plain") }, oci.Middlebox},
		"404 with nothing":             {func() *http.Response { return reply(404, "") }, oci.Middlebox},
		"404 of an API gateway": {func() *http.Response {
			return reply(404, `{"message":"no Route matched"}`, "Content-Type", "application/json")
		}, oci.Middlebox},
		"a page with 404":                    {func() *http.Response { return reply(404, "<html>", "Content-Type", "text/html") }, oci.Middlebox},
		"405 of a balancer":                  {func() *http.Response { return reply(405, "<html>", "Content-Type", "text/html") }, oci.Middlebox},
		"a page with 200 (sigstore-js#1187)": {func() *http.Response { return reply(200, "<html>", "Content-Type", "text/html; charset=utf-8") }, oci.Middlebox},
	}
	for _, status := range []int{401, 403, 404, 406, 410, 429} {
		answers[fmt.Sprintf("a redirect to %d (GHCR)", status)] = struct {
			list func() *http.Response
			by   oci.Party
		}{func() *http.Response {
			return reply(303, "", api, version, "Location", fmt.Sprintf("https://cdn.example.net/%d", status))
		}, oci.Storage}
	}
	manifests := map[string]struct {
		head  func() *http.Response
		alive bool
	}{
		"there":             {func() *http.Response { return reply(200, "", "Docker-Content-Digest", helloDigest) }, true},
		"no digest told":    {func() *http.Response { return reply(200, "", api, version) }, true},
		"not there":         {func() *http.Response { return reply(404, "", api, version) }, true},
		"nobody's 404":      {func() *http.Response { return reply(404, "") }, false},
		"a page":            {func() *http.Response { return reply(200, "", "Content-Type", "text/html") }, false},
		"nobody's 200":      {func() *http.Response { return reply(200, "") }, false},
		"trouble":           {func() *http.Response { return reply(503, "", api, version) }, false},
		"too many requests": {func() *http.Response { return reply(429, "", api, version) }, false},
		"nothing":           {func() *http.Response { return nil }, false},
	}
	for name, a := range answers {
		for state, m := range manifests {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
					if status, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/")); err == nil { // where the redirect leads
						return reply(status, "<html>", "Content-Type", "text/html", "Retry-After", "3600"), nil
					}
					if asked++; strings.Contains(r.URL.Path, "/referrers/") {
						return a.list(), nil
					}
					if resp := m.head(); resp != nil {
						return resp, nil
					}
					return nil, timeoutError{}
				})
				_, err := client.Referrers(t.Context(), hello("reg.example.com"), "", new(bytes.Buffer))
				e, ok := oci.AsError(err)
				if !ok || (e.Kind == oci.NotFound) != (m.alive || a.by == oci.Registry) || e.By != a.by {
					t.Errorf("%s, the manifest %s: %v of kind %v by %v", name, state, err, oci.KindOf(err), e.By)
				}
				if asked > maxRequests+1 { // /v2/ is asked for a challenge
					t.Errorf("%s, the manifest %s: asked %d times", name, state, asked)
				}
			})
		}
	}
}

// TestRefusedListsAreNoMissingOnes: these answers say nothing about the path.
func TestRefusedListsAreNoMissingOnes(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]oci.Kind{
		401: oci.Denied, 403: oci.Denied, 451: oci.Denied, 429: oci.Limited, 500: oci.Unavailable, 503: oci.Unavailable, 414: oci.Invalid,
	} {
		synctest.Test(t, func(t *testing.T) {
			client := faked(t, Registry{}, func(r *http.Request) (*http.Response, error) {
				if strings.Contains(r.URL.Path, "/referrers/") {
					return reply(status, "", "Docker-Distribution-Api-Version", "registry/2.0"), nil
				}
				return reply(200, "", "Docker-Content-Digest", helloDigest), nil
			})
			_, err := client.Referrers(t.Context(), hello("reg.example.com"), "", new(bytes.Buffer))
			wantError(t, err, want, "")
		})
	}
}
