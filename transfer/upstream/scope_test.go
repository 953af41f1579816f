package upstream

import (
	"net/http"
	"strings"
	"testing"
)

// TestAScopeThatIsNobodys: /v2/ may name a repository that is an example (GHCR), or the
// catalog (cloudflare/serverless-registry#148). The token is for what is asked for.
func TestAScopeThatIsNobodys(t *testing.T) {
	t.Parallel()
	const own = "repository:team/app:pull"
	for scope, want := range map[string]string{
		"repository:user/image:pull":                    own,
		"repository:user/image:pull,push":               own,
		"registry:catalog:*":                            own,
		"registry:catalog:* repository:user/image:pull": own,
		"":                               own,
		" ":                              own,
		"*":                              "*",   // Gitea
		"aws":                            "aws", // ECR Public
		"aws repository:user/image:pull": "aws",
	} {
		for _, status := range []int{401, 403, 404} {
			client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
				const api = "Docker-Distribution-Api-Version"
				switch {
				case r.URL.Path == "/token":
					return reply(200, `{"token":"for-`+strings.Join(r.URL.Query()["scope"], "+")+`"}`), nil
				case r.URL.Path == "/v2/":
					return reply(401, "", api, "registry/2.0", "WWW-Authenticate", `Bearer realm="https://reg.example.com/token",service="s",scope="`+scope+`"`), nil
				case r.Header.Get("Authorization") == "Bearer for-"+want:
					return reply(200, "hello"), nil
				}
				return reply(status, "", api, "registry/2.0"), nil
			})
			for range 2 {
				wantHello(t, client, "reg.example.com")
			}
		}
	}
}
