package upstream

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"

	"oci-proxy/transfer/oci"
)

// TestRegistriesWithoutReferrers: however a registry says that it has no such API, clients
// hear the 404 at which they look for a tag. It is the registry's word only if it said so.
func TestRegistriesWithoutReferrers(t *testing.T) {
	t.Parallel()
	const api = "Docker-Distribution-Api-Version"
	ghcr := func(there tripFunc) tripFunc {
		return func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "reg.example.com" {
				return reply(303, "", api, "registry/2.0", "Location", "https://cdn.example.net/-/v2/packages/referrers/sha256"), nil
			}
			return there(r)
		}
	}
	for name, c := range map[string]struct {
		trip tripFunc
		by   oci.Party
	}{
		"distribution 2":                   {answers(404, "404 page not found\n", api, "registry/2.0", "Content-Type", "text/plain"), oci.Registry},
		"Artifactory":                      {answers(406, "", api, "registry/2.0"), oci.Registry},
		"one that rejects":                 {answers(400, `{"errors":[{"code":"UNSUPPORTED"}]}`), oci.Registry},
		"one that knows no such method":    {answers(405, `{"errors":[{"code":"UNSUPPORTED"}]}`), oci.Registry},
		"one that does not implement it":   {answers(501, "", api, "registry/2.0"), oci.Registry},
		"a router's own 404":               {answers(404, "404 page not found\n", "Content-Type", "text/plain"), oci.Middlebox},
		"a router's own 405":               {answers(405, ""), oci.Middlebox},
		"a page for every path":            {answers(200, "<html>", "Content-Type", "text/html"), oci.Middlebox},
		"GHCR":                             {ghcr(answers(404, "<html>", "Content-Type", "text/html")), oci.Storage},
		"GHCR, when GitHub limits":         {ghcr(answers(429, "<html>", "Content-Type", "text/html", "Retry-After", "3600")), oci.Storage},
		"GHCR, when GitHub wants a login":  {ghcr(answers(401, "")), oci.Storage},
		"GHCR, when GitHub refuses":        {ghcr(answers(403, "<html>", "Content-Type", "text/html")), oci.Storage},
		"GHCR, when GitHub does not agree": {ghcr(answers(406, "")), oci.Storage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := faked(t, Registry{FollowRedirects: true}, c.trip)
			_, err := client.Referrers(t.Context(), hello("reg.example.com"), "", new(bytes.Buffer))
			if e := wantError(t, err, oci.NotFound, ""); e.By != c.by {
				t.Errorf("said by the %v, want the %v", e.By, c.by)
			}
			_, err = client.Tags(t.Context(), tagged, "", new(bytes.Buffer))
			if e, ok := oci.AsError(err); name != "distribution 2" && (!ok || e.Kind == oci.NotFound) {
				t.Errorf("of tags: %v", err)
			}
		})
	}
	for _, status := range []int{401, 403, 429, 500, 502, 503, 504} {
		for _, header := range [][]string{{api, "registry/2.0", "Retry-After", "3600"}, {"Content-Type", "text/html", "Retry-After", "3600"}} {
			client := faked(t, Registry{}, answers(status, "", header...))
			_, err := client.Referrers(t.Context(), hello("reg.example.com"), "", new(bytes.Buffer))
			if e, ok := oci.AsError(err); !ok || e.Kind == oci.NotFound {
				t.Errorf("%s: %v", fmt.Sprint(status, header), err)
			}
		}
	}
}
