package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// pages makes up answer lists of five items, one a page, and link as the last argument
// says. Its cursor means nothing to anybody else.
func pages(t *testing.T, up *upstreamtest.Registry, field string, link func(r *http.Request, cursor string) string) {
	t.Helper()
	part := map[string]string{"tags": "/tags/list", "manifests": "/referrers/"}[field]
	up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: part}, Wrap: func(w http.ResponseWriter, r *http.Request) bool {
		page := 0
		if c := r.URL.Query().Get("page_token"); c != "" {
			if _, err := fmt.Sscanf(c, "after+%d/=", &page); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return true
			}
		}
		if page < 4 {
			w.Header().Set("Link", link(r, url.QueryEscape(fmt.Sprintf("after+%d/=", page+1))))
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{%q:["item-%d"]}`, field, page)
		return true
	}})
}

// follow reads a list page by page, as clients do.
func follow(t *testing.T, first, field string, get func(path string) answer) (items []string) {
	t.Helper()
	for next, n := first, 0; next != ""; n++ {
		if n == 9 {
			t.Fatalf("%s does not end: %s", first, next)
		}
		a := get(next)
		a.want(t, http.StatusOK)
		var page map[string][]string
		if err := json.Unmarshal(a.body, &page); err != nil {
			t.Fatal(err)
		}
		items = append(items, page[field]...)
		next, _, _ = strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">")
	}
	return items
}

// linkForms are ways in which registries link to the next page.
var linkForms = map[string]func(r *http.Request, cursor string) string{
	"relative": func(_ *http.Request, c string) string { return fmt.Sprintf(`<?n=1&page_token=%s>; rel="next"`, c) },
	"a path":   func(r *http.Request, c string) string { return fmt.Sprintf(`<%s?page_token=%s&n=1>; rel=next`, r.URL.Path, c) },
	"absolute": func(r *http.Request, c string) string {
		return fmt.Sprintf(`<http://%s%s?page_token=%s>; rel="next"`, r.Host, r.URL.Path, c)
	},
	"without brackets": func(r *http.Request, c string) string { return fmt.Sprintf(`%s?page_token=%s; rel="next"`, r.URL.Path, c) },
	"without rel":      func(r *http.Request, c string) string { return fmt.Sprintf(`<%s?page_token=%s>`, r.URL.Path, c) },
	"below a prefix": func(r *http.Request, c string) string {
		return fmt.Sprintf(`<https://%s/api/docker/x%s?page_token=%s>; rel='next'`, r.Host, r.URL.Path, c)
	},
	"among others": func(_ *http.Request, c string) string {
		return fmt.Sprintf(`<?page_token=x>; rel="prev", </terms>; rel="license", <?page_token=%s>; title="a, b"; rel="last next"`, c)
	},
}

// A list whose pages follow each other by a cursor of the registry's own is whole.
func TestListsPageByWhateverTheRegistryPagesBy(t *testing.T) {
	t.Parallel()
	want := []string{"item-0", "item-1", "item-2", "item-3", "item-4"}
	for name, link := range linkForms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for field, rest := range map[string]string{"tags": "/tags/list", "manifests": "/referrers/" + helloDigest} {
				up := upstreamtest.New(t)
				up.PutImage(repo, "v1", []byte("layer"))
				pages(t, up, field, link)
				p := newProxy(t, up, settings{})
				for _, first := range []string{"/v2/" + repo + rest, "/v2/" + repo + rest + "?n=1", "/v2/" + repo + rest + "?ns=" + up.Host()} {
					if got := follow(t, first, field, func(path string) answer { return p.get(path) }); !slices.Equal(got, want) {
						t.Errorf("%s: %q", first, got)
					}
				}
				for _, r := range up.Requests() {
					if strings.Contains(r.RawQuery, "ns=") {
						t.Errorf("upstream got ?%s", r.RawQuery)
					}
				}
			}
		})
	}
}

// A node that gets lists from another node passes on the same links.
func TestMeshListsPage(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	up.PutImage(repo, "v1", []byte("layer"))
	pages(t, up, "tags", linkForms["among others"])
	c := formCluster(t, 2, up, func(i int) form {
		return form{cluster: fmt.Sprintf("secret: %q%s", meshSecret, map[bool]string{true: ", egress: false"}[i == 1])}
	})
	got := follow(t, "/v2/"+repo+"/tags/list?cursor=a%2fb", "tags", func(path string) answer { return c.get(1, path) })
	if len(got) != 5 {
		t.Errorf("%q", got)
	}
}

// What can't be passed on is an error that names it, not the end of the list.
func TestListsThatCannotGoOn(t *testing.T) {
	t.Parallel()
	for link, named := range map[string]string{
		`<https://other.example.net/v2/` + repo + `/tags/list?page=2>; rel="next"`: "other.example.net",
		`</v2/team/other/tags/list?page=2>; rel="next"`:                            "/v2/team/other/tags/list",
		`<?n=1&page=1>; rel="next"`:                                                "never end",
	} {
		up := upstreamtest.New(t)
		up.PutImage(repo, "v1", []byte("layer"))
		up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/tags/list"}, Header: http.Header{"Link": {link}}})
		p := newProxy(t, up, settings{})
		a := p.get("/v2/" + repo + "/tags/list?page=1&n=1")
		if a.StatusCode != http.StatusBadGateway || !strings.Contains(string(a.body), named) {
			t.Errorf("%s: %d %s", link, a.StatusCode, a.body)
		}
	}
	p := newProxy(t, upstreamtest.New(t), settings{})
	p.get("/v2/" + repo + "/tags/list?c=" + strings.Repeat("x", 9<<10)).wantError(t, http.StatusBadRequest, "UNSUPPORTED")
}
