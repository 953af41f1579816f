package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

const wholeIndex = `{"schemaVersion":2,"manifests":[]}`

// badHeads are ways in which a HEAD fails though a GET works.
func badHeads() map[string]tripFunc {
	const api = "Docker-Distribution-Api-Version"
	out := map[string]tripFunc{
		"a redirect to a link for GET alone": func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "cdn.example.net" {
				return reply(403, "", "Content-Type", "application/xml"), nil
			}
			return reply(307, "", "Location", "https://cdn.example.net/x"), nil
		},
		"a redirect to nowhere": func(*http.Request) (*http.Response, error) { return reply(302, ""), nil },
		"a reset":               func(*http.Request) (*http.Response, error) { return nil, errors.New("connection reset") },
		"silence": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		},
		"no digest, no size": func(*http.Request) (*http.Response, error) { return chunked(reply(200, "")), nil },
		"a page": func(*http.Request) (*http.Response, error) {
			return chunked(reply(200, "", "Content-Type", "text/html")), nil
		},
		"a digest of another kind": func(*http.Request) (*http.Response, error) {
			return chunked(reply(200, "", "Docker-Content-Digest", "sha384:00")), nil
		},
		"a 401 with a challenge that nobody can meet": answers(401, "", "WWW-Authenticate", "Negotiate"),
		"a 401 for which there is no login":           answers(401, "", "WWW-Authenticate", "Basic realm=x"),
		"a 503 that asks to wait for long":            answers(503, "", api, "registry/2.0", "Retry-After", "3600"),
	}
	for _, status := range []int{204, 400, 401, 403, 404, 405, 406, 410, 415, 421, 500, 501, 502, 503, 504} {
		out[http.StatusText(status)+" of the registry"] = answers(status, "", api, "registry/2.0")
		out[http.StatusText(status)+" of nobody"] = answers(status, "", "Content-Type", "text/html")
	}
	return out
}

// chunked takes the length from an answer.
func chunked(r *http.Response) *http.Response {
	r.ContentLength = -1
	return r
}

// TestWhatHeadDoesNotTellGetDoes: whatever a HEAD fails with, a GET decides, once.
func TestWhatHeadDoesNotTellGetDoes(t *testing.T) {
	t.Parallel()
	for name, head := range badHeads() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var asked []string
				client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
					if r.URL.Host == "reg.example.com" && r.URL.Path != "/v2/" {
						asked = append(asked, r.Method)
					}
					switch {
					case r.Method == http.MethodHead, r.URL.Path == "/v2/":
						return head(r)
					case r.Header.Get("Range") != "":
						return reply(206, "h", "Content-Range", "bytes 0-0/5"), nil
					default:
						return reply(200, wholeIndex), nil
					}
				})
				start := time.Now()
				d, err := client.Stat(t.Context(), tagged, false, nil)
				if want := digest.FromString(wholeIndex); err != nil || d.Digest != want || d.Manifest == nil || string(d.Manifest.Bytes) != wholeIndex {
					t.Errorf("the tag: %+v, %v", d, err)
				}
				if took := time.Since(start); took > headTimeout {
					t.Errorf("it took %v", took)
				}
				d, err = client.Stat(t.Context(), hello("reg.example.com"), true, nil)
				if err != nil || d.Size != 5 {
					t.Errorf("the blob: %+v, %v", d, err)
				}
				if len(asked) > 2*maxRequests {
					t.Errorf("asked %v", asked)
				}
			})
		})
	}
}

// TestARedirectMayAnswerAHead: a redirect that names the digest tells what a tag means,
// though nothing answers where it leads.
func TestARedirectMayAnswerAHead(t *testing.T) {
	t.Parallel()
	for name, there := range map[string]tripFunc{
		"refused": answers(403, "<Error/>"), "unknown": answers(404, ""), "a page": answers(200, "", "Content-Type", "text/html"),
		"down": func(*http.Request) (*http.Response, error) { return nil, errors.New("no such host") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gets := 0
			client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodGet {
					gets++
				}
				if r.URL.Host == "reg.example.com" {
					return reply(307, "", "Location", "https://cdn.example.net/x", "Docker-Content-Digest", helloDigest), nil
				}
				return there(r)
			})
			d, err := client.Stat(t.Context(), tagged, false, nil)
			if err != nil || d.Digest != helloDigest || d.Size != -1 || gets != 0 {
				t.Errorf("%+v, %v after %d GETs", d, err, gets)
			}
		})
	}
}

// TestHeadsThatNoGetMends: where nobody answers, or the registry limits, there is no GET.
func TestHeadsThatNoGetMends(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		trip tripFunc
		kind oci.Kind
	}{
		"too many": {answers(429, "", "Retry-After", "3600"), oci.Limited},
		"a loop":   {answers(508, ""), oci.Looped},
		"no such host": {func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}
		}, oci.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := faked(t, Registry{}, func(r *http.Request) (*http.Response, error) {
					if r.Method != http.MethodHead && r.URL.Path != "/v2/" {
						t.Errorf("%s %s", r.Method, r.URL)
					}
					return c.trip(r)
				})
				_, err := client.Stat(t.Context(), tagged, false, nil)
				wantError(t, err, c.kind, "")
			})
		})
	}
}

// TestALimitOfHeads: a limit that does not say for how long may be one of HEADs alone.
func TestALimitOfHeads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
			asked = append(asked, r.Method)
			switch {
			case r.Method == http.MethodHead:
				return reply(429, "", "Docker-Distribution-Api-Version", "registry/2.0"), nil
			case r.Header.Get("Range") != "":
				return reply(206, "h", "Content-Range", "bytes 0-0/5"), nil
			}
			return reply(200, wholeIndex), nil
		})
		if d, err := client.Stat(t.Context(), tagged, false, nil); err != nil || d.Digest != digest.FromString(wholeIndex) || len(asked) > maxRequests {
			t.Errorf("the tag: %+v, %v, asked %q", d, err, asked)
		}
		asked = nil
		if d, err := client.Stat(t.Context(), hello("reg.example.com"), true, nil); err != nil || d.Size != 5 || len(asked) > maxRequests {
			t.Errorf("the blob: %+v, %v, asked %q", d, err, asked)
		}
	})
}

// TestAnAnswerWithNothingInItTellsNothing: it may come from anything on the way, so it
// neither tells a size nor shows that the registry has the content.
func TestAnAnswerWithNothingInItTellsNothing(t *testing.T) {
	t.Parallel()
	for name, header := range map[string][]string{"no type": nil, "text": {"Content-Type", "text/plain"}, "its type": {"Content-Type", imageType}} {
		asked := 0
		client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
			asked++
			return reply(200, "", header...), nil
		})
		for _, blob := range []bool{true, false} {
			asked = 0
			d, err := client.Stat(t.Context(), hello("reg.example.com"), blob, nil)
			if e, ok := oci.AsError(err); !ok || e.Kind != oci.Corrupt || asked > maxRequests {
				t.Errorf("%s, blob %v: %+v, %v, asked %d times", name, blob, d, err, asked)
			}
		}
		nothing := hello("reg.example.com")
		nothing.Digest = digest.FromBytes(nil)
		if d, err := client.Stat(t.Context(), nothing, true, nil); err != nil || d.Size != 0 {
			t.Errorf("%s, the blob of nothing: %+v, %v", name, d, err)
		}
	}
}
