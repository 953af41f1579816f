package upstream

import (
	"bytes"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"oci-proxy/transfer/oci"
)

func TestListsPassOnTheirQuery(t *testing.T) {
	t.Parallel()
	client := faked(t, Registry{}, func(r *http.Request) (*http.Response, error) {
		if r.URL.RawQuery != "cursor=a%2fb&n=5&last=x%26y" {
			t.Errorf("query %s", r.URL.RawQuery)
		}
		return reply(
			200, "{}", "Content-Type", "application/json", "OCI-Filters-Applied", "artifactType",
			"Link", `<?n=5&ns=evil&page_token=z%2b>; rel="next"`,
		), nil
	})
	want := &oci.Page{
		MediaType: "application/json", Filters: "artifactType", Next: "n=5&page_token=z%2b", By: oci.Registry,
	}
	tags, err := client.Tags(t.Context(), oci.Ref{Registry: "reg.example.com", Repository: "a"}, "cursor=a%2fb&n=5&last=x%26y", new(bytes.Buffer))
	if err != nil || !reflect.DeepEqual(tags, want) {
		t.Errorf("%+v, %v", tags, err)
	}
	referrers, err := client.Referrers(t.Context(), hello("reg.example.com"), "cursor=a%2fb&n=5&last=x%26y", new(bytes.Buffer))
	if err != nil || !reflect.DeepEqual(referrers, want) {
		t.Errorf("%+v, %v", referrers, err)
	}
}

// nextOf is what upstream makes of Link headers in the answer to the first page of
// org/app at host.
func nextOf(t *testing.T, host string, query oci.Query, links ...string) (oci.Query, string) {
	t.Helper()
	h := newHome(host, false)
	a := &answer{
		resp: &http.Response{StatusCode: 200, Header: http.Header{"Link": links, "Docker-Distribution-Api-Version": {"registry/2.0"}}},
		home: h, url: &url.URL{Scheme: "https", Host: host, Path: "/v2/org/app/tags/list"}, asked: oci.Registry,
	}
	next, f := a.next(ask{repo: "org/app", path: "tags/list", query: query})
	if f != nil {
		return "", f.Reason
	}
	return next, ""
}

func TestLinksToTheNextPage(t *testing.T) {
	t.Parallel()
	const own = "/v2/org/app/tags/list"
	for link, want := range map[string]oci.Query{
		"":                                     "",
		`<` + own + `?last=x&n=2>; rel="next"`: "last=x&n=2",
		`<?last=x>;rel=NEXT;title="y"`:         "last=x",
		`<?last=x>;REL='next'`:                 "last=x",
		`<?last=x> ; title="a, b; rel=prev" ; rel="prev next"`:          "last=x",
		`<?last=p>; rel="prev", <?last=x>; rel="next"`:                  "last=x",
		`<?last=p>; rel="prev",<?last=x>;rel="next"`:                    "last=x",
		`<?last=a,b>; rel="next"`:                                       "last=a,b",
		`<?last=x>; rel="prev"`:                                         "",
		`</terms>; rel="license"`:                                       "",
		`<?cursor=x>`:                                                   "cursor=x", // clients do not look at rel
		`</help>`:                                                       "",
		own + `?cursor=a%2bb; rel="next"`:                               "cursor=a%2bb", // Quay, for years
		own + `?last=p; rel=prev, ` + own + `?last=a,b; rel=next`:       "last=a,b",
		`<` + own + `?last=x; rel="next"`:                               "last=x",
		own + `?last=x`:                                                 "last=x",
		`"` + own + `?last=x"; rel=next`:                                "last=x",
		`<list?page_token=x>; rel="next"`:                               "page_token=x",
		`<./list?page_token=x>; rel="next"`:                             "page_token=x",
		`<../tags/list/?page_token=x>; rel="next"`:                      "page_token=x",
		`<https://reg.example.com` + own + `?a=1>; rel="next"`:          "a=1",
		`<https://reg.example.com:443` + own + `?a=1>; rel="next"`:      "a=1",
		`<http://REG.example.com` + own + `?a=1>; rel="next"`:           "a=1", // a gateway does the TLS
		`<//reg.example.com` + own + `?a=1>; rel="next"`:                "a=1",
		`</artifactory/api/docker/x` + own + `?a=1>; rel="next"`:        "a=1", // a gateway does the prefix
		`<https://reg.example.com/x` + own + `?a=1#f>; rel="next"`:      "a=1",
		`</org/app/tags/list?a=1>; rel="next"`:                          "a=1",
		`</v2/org%2Fapp/tags/list?a=1>; rel="next"`:                     "a=1",
		`<?b=2&a=1&b=3&flag&c=%7e>; rel="next"`:                         "b=2&a=1&b=3&flag&c=%7e",
		`<?next_page=x&ns=evil>; rel="next"`:                            "next_page=x",
		`<?q=a b>; rel="next"`:                                          "q=a%20b",
		`<?last=` + strings.Repeat("x", oci.MaxQuery-5) + `>; rel=next`: "last=" + oci.Query(strings.Repeat("x", oci.MaxQuery-5)),
	} {
		if got, wrong := nextOf(t, "reg.example.com", "n=1", link); got != want || wrong != "" {
			t.Errorf("%.90s: %q (%s), want %q", link, got, wrong, want)
		}
	}
	for _, c := range []struct{ host, link string }{
		{"reg.example.com:5000", `<https://reg.example.com:5000` + own + `?a=1>; rel="next"`},
		{"reg.example.com:5000", `<http://reg.example.com` + own + `?a=1>; rel="next"`}, // nginx: Host $host
		{"[::1]:5000", `<http://[::1]:5000` + own + `?a=1>; rel="next"`},
	} {
		if got, wrong := nextOf(t, c.host, "", c.link); got != "a=1" {
			t.Errorf("%s: %s: %q (%s)", c.host, c.link, got, wrong)
		}
	}
	if got, wrong := nextOf(t, "reg.example.com", "", `<?p=1>; rel="prev"`, `<?p=2>; rel="last"`, `<?p=3>; rel="next"`); got != "p=3" {
		t.Errorf("several headers: %q, %s", got, wrong)
	}
}

func TestLinksThatCannotBePassedOn(t *testing.T) {
	t.Parallel()
	for link, want := range map[string]string{
		`<https://evil.example.net/v2/org/app/tags/list?last=x>; rel=next`:     "leads to another host: evil.example.net",
		`<https://reg.example.com:5000/v2/org/app/tags/list?last=x>; rel=next`: "leads to another host: reg.example.com:5000",
		`<ftp://files.example.com/v2/org/app/tags/list?last=x>; rel=next`:      "leads to another host: files.example.com",
		`</v2/org/other/tags/list?last=x>; rel="next"`:                         "leads to another list: /v2/org/other/tags/list",
		`</v2/evil/org/app/tags/list?last=x>; rel="next"`:                      "leads to another list: /v2/evil/org/app/tags/list",
		`</v2/org/app/tags/list/page/2>; rel="next"`:                           "leads to another list: /v2/org/app/tags/list/page/2",
		`</v2/_catalog?last=x>; rel="next"`:                                    "leads to another list: /v2/_catalog",
		`<?n=1&last=a>; rel="next"`:                                            "leads back",
		`<?last=%61&n=1>; rel="next"`:                                          "leads back",
		`<?ns=evil>; rel="next"`:                                               "leads back",
		`</v2/org/app/tags/list>; rel="next"`:                                  "leads back",
		`<>; rel="next"`:                                                       "leads back",
		`; rel="next"`:                                                         "",
		`<http://[::1>; rel="next"`:                                            "can't be read",
		`<mailto:x>; rel="next"`:                                               "can't be read",
		`<?last=` + strings.Repeat("x", oci.MaxQuery) + `>; rel=next`:          "too long",
	} {
		if got, wrong := nextOf(t, "reg.example.com", "last=a&n=1", link); got != "" || !strings.Contains(wrong, want) {
			t.Errorf("%.90s: %q, %q, want %q", link, got, wrong, want)
		}
	}
}

// A registry that redirects lists elsewhere links to where it redirects.
func TestLinksOfARedirectedList(t *testing.T) {
	t.Parallel()
	client := faked(t, Registry{}, func(r *http.Request) (*http.Response, error) {
		if r.URL.Host == "reg.example.com" {
			return reply(307, "", "Location", "https://us.example.net/v2/images/a/tags/list?"+r.URL.RawQuery), nil
		}
		return reply(200, "{}", "Content-Type", "application/json", "Link", `</v2/images/a/tags/list?c=2>; rel="next"`), nil
	})
	p, err := client.Tags(t.Context(), oci.Ref{Registry: "reg.example.com", Repository: "a"}, "n=1", new(bytes.Buffer))
	if err != nil || p.Next != "c=2" {
		t.Errorf("%+v, %v", p, err)
	}
}

// A list whose next page can't be passed on is an error that says who and what.
func TestAListThatCannotGoOn(t *testing.T) {
	t.Parallel()
	client := faked(t, Registry{}, func(*http.Request) (*http.Response, error) {
		return reply(200, "{}", "Content-Type", "application/json", "Link", `<https://other.example.net/v2/a/tags/list?c=2>; rel="next"`), nil
	})
	_, err := client.Tags(t.Context(), oci.Ref{Registry: "reg.example.com", Repository: "a"}, "", new(bytes.Buffer))
	wantError(t, err, oci.Corrupt, "other.example.net")
	_, err = client.Referrers(t.Context(), hello("reg.example.com"), "", new(bytes.Buffer))
	wantError(t, err, oci.Corrupt, "other.example.net")
}

func FuzzLinks(f *testing.F) {
	f.Add(`</v2/org/app/tags/list?last=x&n=2>; rel="next"`)
	f.Add(`<?last=p>; rel="prev", <?last=x>; title="a,b"; rel=next`)
	f.Add(`/v2/org/app/tags/list?a=1; rel=next, <`)
	f.Fuzz(func(t *testing.T, header string) {
		next, wrong := nextOf(t, "reg.example.com", "n=1", header)
		if next != oci.ListQuery(string(next)) || next != "" && (wrong != "" || next.Same("n=1")) || len(next) > oci.MaxQuery {
			t.Errorf("%q gives %q, %q", header, next, wrong)
		}
	})
}
