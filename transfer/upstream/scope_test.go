package upstream

import (
	"net/http"
	"testing"
)

// The scope of a challenge is taken as it comes, unless a token for it would allow nothing.
func TestScopesOfTokens(t *testing.T) {
	t.Parallel()
	const pull = "repository:team/app:pull"
	for scope, want := range map[string]string{
		``:                                  pull, // nvcr.io
		`,scope=""`:                         pull, // OCIR
		`,scope="repository:team/app:"`:     pull, // SWR
		`,scope="repository:team/app"`:      pull,
		`,scope=" repository:team/app: "`:   pull,
		`,scope="` + pull + `"`:             pull,
		`,scope="aws"`:                      "aws", // public.ecr.aws
		`,scope="*"`:                        "*",   // Gitea
		`,scope="` + pull + `,push"`:        pull + ",push",
		`,scope="repository:other/app:"`:    "repository:other/app:",
		`,scope="` + pull + ` registry:x:*`: pull + " registry:x:*",
	} {
		client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
			got := ""
			for i, one := range r.URL.Query()["scope"] {
				got += map[bool]string{true: " "}[i > 0] + one
			}
			switch {
			case r.URL.Path == "/token" && got != want:
				t.Errorf("%s: a token for %q, want %q", scope, got, want)
				fallthrough
			case r.URL.Path == "/token":
				return reply(200, `{"token":"t"}`), nil
			case r.Header.Get("Authorization") != "Bearer t":
				return reply(401, "", "WWW-Authenticate", `Bearer realm="https://reg.example.com/token",service="s"`+scope), nil
			}
			return reply(200, "hello"), nil
		})
		wantHello(t, client, "reg.example.com")
	}
}
