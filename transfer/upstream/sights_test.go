package upstream

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/oci"
)

// What one account may not see, the others are asked for. Then the one that may is asked first.
func TestWhatOneAccountMayNotSee(t *testing.T) {
	t.Parallel()
	for _, status := range []int{404, 403, 401} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, k *clerk) {
				if status == 401 && !k.tokens {
					t.Skip("a 401 to a login is a wrong login")
				}
				c := k.client(t, Registry{}, "a", "b", "c")
				k.unseen, k.blind["a"], k.blind["b"], k.blind["c"] = status, "team/", "team/", "other/"
				for range 3 {
					if got, err := opened(t.Context(), c, in("team/app")); err != nil || got != "hello" {
						t.Fatalf("%q, %v", got, err)
					}
				}
				if got := strings.Join(k.took(), ""); !strings.HasPrefix(got, "a") || !strings.HasSuffix(got, "ccc") || len(got) > 9 {
					t.Errorf("they came as %s", got)
				}
				for range 3 {
					if got, err := opened(t.Context(), c, in("other/app")); err != nil || got != "hello" {
						t.Fatalf("%q, %v", got, err)
					}
				}
				k.blind["c"] = "team/"
				_, err := opened(t.Context(), c, in("team/app"))
				want := map[int]oci.Kind{404: oci.NotFound, 403: oci.Denied, 401: oci.Denied}[status]
				if e := wantError(t, err, want, ""); !e.Authoritative() {
					t.Errorf("the refusal of all is not final: %+v", e)
				}
				if names := c.Refused(); len(names) > 0 {
					t.Errorf("%v count as wrong", names)
				}
			})
		})
	}
}

// Tags are asked for by HEAD. That one account is refused those costs a GET once at most: they
// count against the limits of many registries.
func TestWhatOneAccountMayNotSeeIsLearntFromHEAD(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]bool{"a repository": false, "a wrong login": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, k *clerk) {
				gets := 0
				c := k.client(t, Registry{}, "a", "b")
				r := c.named["reg.example.com"]
				r.net.own = tripFunc(func(req *http.Request) (*http.Response, error) {
					if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/manifests/") && req.Header.Get("Authorization") != "" {
						gets++
					}
					resp, err := k.answer(req)
					resp.Header.Set("Docker-Content-Digest", helloDigest)
					return resp, err
				})
				if k.blind["a"] = "team/"; wrong {
					delete(k.blind, "a")
					k.wrong["a"] = 401
				}
				for range 8 {
					d, err := c.Stat(t.Context(), oci.Ref{Registry: "reg.example.com", Repository: "team/app", Tag: "v1"}, false, nil)
					if err != nil || d.Digest != helloDigest {
						t.Fatalf("%+v, %v", d, err)
					}
				}
				if gets > 1 {
					t.Errorf("%d GETs with a login", gets)
				}
				as := 0
				for _, user := range k.took() {
					if user == "a" {
						as++
					}
				}
				if as > 1 {
					t.Errorf("the account was tried %d times", as)
				}
			})
		})
	}
}

// While an account is limited that may see it, what another is refused is no refusal. If that
// other one sees the repository, its word counts.
func TestARefusalIsNotBelievedWhileAnAccountIsLimited(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k *clerk) {
		c := k.client(t, Registry{Limited: func(string, time.Duration) { t.Error("members were told") }}, "a", "b")
		k.blind["a"], k.status["b"], k.header["b"] = "team/", 429, http.Header{"Retry-After": {"60"}}
		for range 2 {
			_, err := opened(t.Context(), c, in("team/app"))
			if e := wantError(t, err, oci.Limited, ""); e.RetryAfter > time.Minute || e.RetryAfter < 40*time.Second {
				t.Errorf("the error is %+v", e)
			}
		}
		if got, err := opened(t.Context(), c, in("other/app")); err != nil || got != "hello" {
			t.Errorf("what the account may see: %q, %v", got, err)
		}
		k.blind["a"] = "other/"
		_, err := opened(t.Context(), c, in("other/app"))
		wantError(t, err, oci.NotFound, "")
		k.blind["a"] = "team/"
		clear(k.status)
		time.Sleep(time.Minute) // in the bubble
		if got, err := opened(t.Context(), c, in("team/app")); err != nil || got != "hello" {
			t.Errorf("after the rest: %q, %v", got, err)
		}
	})
}
