package oci_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"oci-proxy/transfer/oci"

	"github.com/opencontainers/go-digest"
)

const hub = "registry-1.docker.io"

// someNames returns Names like those of a node.
func someNames() oci.Names {
	return oci.Names{
		Default: hub, Hub: hub,
		Alias: map[string]string{"gh": "ghcr.io", "lab": "lab.example.com:5000"},
		Known: func(r string) bool { return r == "myreg:5000" || r == hub },
		Canonical: func(host string) string {
			switch host = strings.ToLower(host); host {
			case "docker.io", "index.docker.io":
				return hub
			}
			return host
		},
	}
}

var (
	sha256Of = digest.FromString("x").String()
	sha512Of = digest.SHA512.FromString("x").String()
)

func TestParsePath(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("a", n) }
	tests := []struct{ path, ns, want string }{ // want: registry repository reference, or the error's code
		// The registry in the path, or none.
		{"/v2/nginx/manifests/latest", "", hub + " library/nginx latest"},
		{"/v2/library/nginx/manifests/latest", "", hub + " library/nginx latest"},
		{"/v2/grafana/grafana/manifests/1.0", "", hub + " grafana/grafana 1.0"},
		{"/v2/a/b/c/d/manifests/1", "", hub + " a/b/c/d 1"},
		{"/v2/docker.io/nginx/manifests/latest", "", hub + " library/nginx latest"},
		{"/v2/docker.io/library/nginx/manifests/latest", "", hub + " library/nginx latest"},
		{"/v2/index.docker.io/a/b/manifests/latest", "", hub + " a/b latest"},
		{"/v2/registry-1.docker.io/a/manifests/latest", "", hub + " library/a latest"},
		{"/v2/ghcr.io/org/img/manifests/v1", "", "ghcr.io org/img v1"},
		{"/v2/ghcr.io/org/a/b/c/manifests/v1", "", "ghcr.io org/a/b/c v1"},
		{"/v2/quay.io/one/manifests/v1", "", "quay.io one v1"},
		{"/v2/GHCR.io/org/img/manifests/v1", "", "ghcr.io org/img v1"},
		{"/v2/ghcr.io/ghcr.io/img/manifests/v1", "", "ghcr.io ghcr.io/img v1"},
		{"/v2/ghcr.io/manifests/v1", "", hub + " library/ghcr.io v1"},
		{"/v2/gh/org/img/manifests/v1", "", "ghcr.io org/img v1"},
		{"/v2/gh/manifests/v1", "", hub + " library/gh v1"},
		{"/v2/lab/img/manifests/v1", "", "lab.example.com:5000 img v1"},
		{"/v2/manifests/manifests/manifests", "", hub + " library/manifests manifests"},
		{"/v2/a/blobs/manifests/b", "", hub + " a/blobs b"},
		// Ports.
		{"/v2/localhost/a/manifests/v1", "", "localhost a v1"},
		{"/v2/localhost:5000/a/manifests/v1", "", "localhost:5000 a v1"},
		{"/v2/localhost%3A5000/a/manifests/v1", "", "localhost:5000 a v1"},
		{"/v2/localhost%3a5000/a/manifests/v1", "", "localhost:5000 a v1"},
		{"/v2/localhost_5000/a/manifests/v1", "", "localhost:5000 a v1"},
		{"/v2/reg.example.com:8443/a/b/manifests/v1", "", "reg.example.com:8443 a/b v1"},
		{"/v2/reg.example.com_8443/a/b/manifests/v1", "", "reg.example.com:8443 a/b v1"},
		{"/v2/10.0.0.1_5000/a/manifests/v1", "", "10.0.0.1:5000 a v1"},
		{"/v2/myreg_5000/a/manifests/v1", "", "myreg:5000 a v1"},
		{"/v2/other_5000/a/manifests/v1", "", hub + " other_5000/a v1"},
		{"/v2/myreg:5000/a/manifests/v1", "", "myreg:5000 a v1"},
		{"/v2/localhost:/a/manifests/v1", "", "NAME_INVALID"},
		{"/v2/localhost:123456/a/manifests/v1", "", "NAME_INVALID"},
		{"/v2/localhost:65536/a/manifests/v1", "", "NAME_INVALID"},
		{"/v2/:5000/a/manifests/v1", "", "NAME_INVALID"},
		// ?ns=.
		{"/v2/org/img/manifests/v1", "ghcr.io", "ghcr.io org/img v1"},
		{"/v2/img/manifests/v1", "ghcr.io", "ghcr.io img v1"},
		{"/v2/a/b/c/d/e/manifests/v1", "ghcr.io", "ghcr.io a/b/c/d/e v1"},
		{"/v2/nginx/manifests/v1", "docker.io", hub + " library/nginx v1"},
		{"/v2/library/nginx/manifests/v1", "docker.io", hub + " library/nginx v1"},
		{"/v2/ghcr.io/org/img/manifests/v1", "ghcr.io", "ghcr.io org/img v1"},
		{"/v2/docker.io/nginx/manifests/v1", "registry-1.docker.io", hub + " library/nginx v1"},
		{"/v2/quay.io/org/img/manifests/v1", "ghcr.io", "ghcr.io quay.io/org/img v1"},
		{"/v2/gh/org/img/manifests/v1", "ghcr.io", "ghcr.io org/img v1"},
		{"/v2/localhost_5000/a/manifests/v1", "localhost:5000", "localhost:5000 a v1"},
		{"/v2/a/manifests/v1", "localhost:5000", "localhost:5000 a v1"},
		{"/v2/a/manifests/v1", "GHCR.IO", "ghcr.io a v1"},
		{"/v2/a/manifests/v1", "../x", "NAME_INVALID"},
		{"/v2/a/manifests/v1", "ghcr.io/org", "NAME_INVALID"},
		{"/v2/a/manifests/v1", "user@ghcr.io", "NAME_INVALID"},
		{"/v2/a/manifests/v1", "ghcr.io?x", "NAME_INVALID"},
		{"/v2/a/manifests/v1", "http://ghcr.io", "NAME_INVALID"},
		// Digests.
		{"/v2/a/b/blobs/" + sha256Of, "", hub + " a/b " + sha256Of},
		{"/v2/a/b/blobs/" + strings.Replace(sha256Of, ":", "%3A", 1), "", hub + " a/b " + sha256Of},
		{"/v2/a/b/blobs/" + sha512Of, "", hub + " a/b " + sha512Of},
		{"/v2/a/b/manifests/" + sha256Of, "", hub + " a/b " + sha256Of},
		{"/v2/a/b/referrers/" + sha256Of, "", hub + " a/b " + sha256Of},
		{"/v2/a/b/blobs/" + strings.ToUpper(sha256Of), "", "DIGEST_INVALID"},
		{"/v2/a/b/blobs/" + sha256Of[:70], "", "DIGEST_INVALID"},
		{"/v2/a/b/blobs/" + sha256Of + "0", "", "DIGEST_INVALID"},
		{"/v2/a/b/blobs/sha256:", "", "DIGEST_INVALID"},
		{"/v2/a/b/blobs/sha384:" + long(96), "", "DIGEST_INVALID"},
		{"/v2/a/b/blobs/md5:" + long(32), "", "DIGEST_INVALID"},
		{"/v2/a/b/blobs/latest", "", "DIGEST_INVALID"},
		{"/v2/a/b/blobs/", "", "DIGEST_INVALID"},
		{"/v2/a/b/referrers/latest", "", "DIGEST_INVALID"},
		{"/v2/a/b/manifests/md5:" + long(32), "", "DIGEST_INVALID"},
		// Tags.
		{"/v2/a/manifests/" + long(128), "", hub + " library/a " + long(128)},
		{"/v2/a/manifests/_A.b-1", "", hub + " library/a _A.b-1"},
		{"/v2/a/manifests/" + long(129), "", "MANIFEST_INVALID"},
		{"/v2/a/manifests/", "", "MANIFEST_INVALID"},
		{"/v2/a/manifests/.", "", "MANIFEST_INVALID"},
		{"/v2/a/manifests/..", "", "MANIFEST_INVALID"},
		{"/v2/a/manifests/-a", "", "MANIFEST_INVALID"},
		{"/v2/a/tags/list", "", hub + " library/a "},
		{"/v2/ghcr.io/a/b/tags/list", "", "ghcr.io a/b "},
		// Names.
		{"/v2/a..b/manifests/v1", "", "NAME_INVALID"},
		{"/v2/a__b/manifests/v1", "", hub + " library/a__b v1"},
		{"/v2/a---b/manifests/v1", "", hub + " library/a---b v1"},
		{"/v2/a___b/manifests/v1", "", "NAME_INVALID"},
		{"/v2/-a/manifests/v1", "", "NAME_INVALID"},
		{"/v2/Upper/case/manifests/v1", "", "NAME_INVALID"},
		{"/v2/a/../b/manifests/v1", "", "NAME_INVALID"},
		{"/v2/../a/manifests/v1", "", "NAME_INVALID"},
		{"/v2/ghcr.io/../b/manifests/v1", "", "NAME_INVALID"},
		{"/v2/./a/manifests/v1", "", "NAME_INVALID"},
		{"/v2//a/manifests/v1", "", "NAME_INVALID"},
		{"/v2/a//b/manifests/v1", "", "NAME_INVALID"},
		{"/v2//manifests/v1", "", "NAME_INVALID"},
		{"/v2/ghcr.io//manifests/v1", "", "NAME_INVALID"},
		{"/v2/ghcr.io/" + long(247) + "/manifests/v1", "", "ghcr.io " + long(247) + " v1"},
		{"/v2/ghcr.io/" + long(248) + "/manifests/v1", "", "NAME_INVALID"},
		{"/v2/" + long(256) + "/manifests/v1", "", "NAME_INVALID"},
		{"/v2/foo_bar.io/a/manifests/v1", "", "NAME_INVALID"},
		{"/v2/a b/manifests/v1", "", "NAME_INVALID"},
		{"/v2/é/manifests/v1", "", "NAME_INVALID"},
		// No paths of the API, and what is escaped.
		{"/v2/", "", "NOT_FOUND"},
		{"/v2", "", "NOT_FOUND"},
		{"/v1/a/manifests/v1", "", "NOT_FOUND"},
		{"/v2/_catalog", "", "NOT_FOUND"},
		{"/v2/manifests/v1", "", "NOT_FOUND"},
		{"/v2/a/tags/all", "", "NOT_FOUND"},
		{"/v2/a/blobs/uploads/", "", "NOT_FOUND"},
		{"/v2/a/manifests/v1/", "", "NOT_FOUND"},
		{"/v2/a%2Fb/manifests/v1", "", "NOT_FOUND"},
		{"/v2/a%2fb/manifests/v1", "", "NOT_FOUND"},
		{"/v2/%2e%2e/a/manifests/v1", "", "NOT_FOUND"},
		{"/v2/a/%2E/manifests/v1", "", "NOT_FOUND"},
		{"/v2/a%00/manifests/v1", "", "NOT_FOUND"},
		{"/v2/a/manifests/v%31", "", "NOT_FOUND"},
		{"/v2/a%253A/manifests/v1", "", "NOT_FOUND"},
		{"/v2/" + long(1024) + "/manifests/v1", "", "NOT_FOUND"},
	}
	for _, test := range tests {
		if got := parsed(t, test.path, test.ns); got != test.want {
			t.Errorf("%.120s ns=%s:\n got %s\nwant %s", test.path, test.ns, got, test.want)
		}
	}
}

// parsed returns what ParsePath makes of a path.
func parsed(t *testing.T, path, ns string) string {
	t.Helper()
	req, err := oci.ParsePath(path, ns, someNames())
	if err != nil {
		p, ok := errors.AsType[*oci.PathError](err)
		if !ok {
			t.Fatalf("error %v (%T)", err, err)
		}
		return p.Code
	}
	return req.Registry + " " + req.Repository + " " + req.Tag + req.Digest.String()
}

func TestParsePathTellsTheResource(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]oci.Resource{
		"/v2/a/b/manifests/v1":           oci.ManifestResource,
		"/v2/a/b/manifests/" + sha256Of:  oci.ManifestResource,
		"/v2/a/b/blobs/" + sha256Of:      oci.BlobResource,
		"/v2/a/b/tags/list":              oci.TagsResource,
		"/v2/a/b/referrers/" + sha512Of:  oci.ReferrersResource,
		"/v2/gh/a/tags/manifests/latest": oci.ManifestResource,
	} {
		if req, err := oci.ParsePath(path, "", someNames()); err != nil || req.Resource != want {
			t.Errorf("%s: %+v, error %v", path, req, err)
		}
	}
}

// FuzzParsePath: what a path parses to can be written as a path that parses to the
// same.
func FuzzParsePath(f *testing.F) {
	for _, path := range []string{
		"/v2/nginx/manifests/latest", "/v2/ghcr.io/org/img/blobs/" + sha256Of, "/v2/localhost_5000/a/manifests/" + sha512Of,
		"/v2/gh/a/b/tags/list", "/v2/localhost%3A5000/a/referrers/" + sha256Of, "/v2/a/../b/manifests/v1", "/v2/%2e%2e/a/manifests/v1",
		"/v2/ghcr.io/ghcr.io/a/manifests/v1", "/v2//a/manifests/v1", "/v2/myreg_5000/a/manifests/v1",
	} {
		for _, ns := range []string{"", "ghcr.io", "docker.io", "localhost:5000", "x"} {
			f.Add(path, ns)
		}
	}
	f.Fuzz(func(t *testing.T, path, ns string) {
		req, err := oci.ParsePath(path, ns, someNames())
		if err != nil {
			if _, ok := errors.AsType[*oci.PathError](err); !ok {
				t.Fatalf("error %v (%T)", err, err)
			}
			return
		}
		if !reparses(req, "") && !reparses(req, req.Registry+"/") {
			t.Fatalf("%q ns=%q is %+v, which can't be written as a path", path, ns, req)
		}
		all := req.Registry + "/" + req.Repository + "/" + req.Tag + req.Digest.String()
		if strings.Contains("/"+all+"/", "/../") || strings.Contains(all, "//") || (&url.URL{Path: all}).EscapedPath() != all && !strings.Contains(req.Registry, ":") {
			t.Fatalf("%q ns=%q is %q", path, ns, all)
		}
	})
}

// reparses reports whether req, written as a path with ?ns= and with lead before its
// repository, parses to the same.
func reparses(req oci.Request, lead string) bool {
	path := "/v2/" + lead + req.Repository
	switch req.Resource {
	case oci.TagsResource:
		path += "/tags/list"
	case oci.BlobResource:
		path += "/blobs/" + req.Digest.String()
	case oci.ReferrersResource:
		path += "/referrers/" + req.Digest.String()
	default:
		path += "/manifests/" + req.Tag + req.Digest.String()
	}
	again, err := oci.ParsePath(path, req.Registry, someNames())
	return err == nil && again.Ref == req.Ref && again.Resource == req.Resource
}
