package upstream

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"oci-proxy/transfer/oci"
)

// A site is a host that has a registry below /team/prefix, whose paths it takes off or
// leaves on. What it is asked for is in asked.
type site struct {
	realm, location string // as the registry names them
	below           bool   // what they name is below the path; if not, at the root
	root            int    // status of what is not there, 404 if 0; 200 is a page
	link            string // to the next page of tags
	asked           []string
}

func (s *site) serve(r *http.Request) (*http.Response, error) {
	s.asked = append(s.asked, r.URL.EscapedPath())
	if r.URL.Hostname() != "reg.example.com" {
		return reply(400, "another host: "+r.URL.Host), nil
	}
	path, inside := strings.CutPrefix(r.URL.Path, "/team/prefix")
	switch {
	case inside && strings.HasPrefix(path, "/v2/") && path != "/v2/token" && path != "/v2/moved":
		return s.registry(r, path)
	case inside == s.below && strings.HasSuffix(path, "/token"):
		if user, password, _ := r.BasicAuth(); user != "user" || password != canary {
			return reply(401, ""), nil
		}
		return reply(200, `{"token":"t"}`, "Content-Type", "application/json"), nil
	case inside == s.below && strings.HasSuffix(path, "/moved"):
		return reply(200, "hello"), nil
	case s.root == 200:
		return reply(200, "<html>everything else</html>", "Content-Type", "text/html"), nil
	default:
		return reply(404, "<html>none</html>", "Content-Type", "text/html"), nil
	}
}

func (s *site) registry(r *http.Request, path string) (*http.Response, error) {
	if r.Header.Get("Authorization") != "Bearer t" {
		return reply(401, "", "WWW-Authenticate", `Bearer realm="`+s.realm+`",service="s",scope="repository:team/app:pull"`), nil
	}
	if strings.HasSuffix(path, "/tags/list") {
		return reply(200, `{"tags":["a"]}`, "Content-Type", "application/json", "Link", s.link), nil
	}
	if s.location != "" {
		return reply(307, "", "Location", s.location), nil
	}
	return reply(200, "hello"), nil
}

// Realms, redirects and links of a registry below a path lead where a client would go, and
// below the path if the registry does not know it.
func TestARegistryBelowAPath(t *testing.T) {
	t.Parallel()
	const own = "https://reg.example.com"
	for name, s := range map[string]site{
		"with its path":                  {realm: own + "/team/prefix/v2/token", location: own + "/team/prefix/moved", below: true, link: `</team/prefix/v2/team/app/tags/list?n=1&last=a>; rel="next"`},
		"with its path, without a host":  {realm: "/team/prefix/v2/token", location: "/team/prefix/v2/moved", below: true, link: `</team/prefix/v2/team/app/tags/list?n=1&last=a>; rel="next"`},
		"without its path":               {realm: own + "/v2/token", location: own + "/moved", below: true, link: `<` + own + `/v2/team/app/tags/list?n=1&last=a>; rel="next"`},
		"without its path, with a port":  {realm: own + ":443/v2/token", location: own + ":443/v2/moved", below: true, link: `</v2/team/app/tags/list?n=1&last=a>; rel="next"`},
		"without its path or a host":     {realm: "/token", location: "/v2/moved", below: true, link: `</v2/team/app/tags/list?n=1&last=a>; rel="next"`},
		"at the root of its host":        {realm: own + "/token", location: own + "/v2/moved", link: `<?n=1&last=a>; rel="next"`},
		"at the root, without a host":    {realm: "/v2/token", location: "/moved", link: `<list?n=1&last=a>`},
		"relative to the request":        {realm: "../../../token", location: "../../../../moved", below: true, link: `<?n=1&last=a>`},
		"without redirects":              {realm: "/auth/token", below: true},
		"where all else is a page":       {realm: "/v2/token", location: "/moved", below: true, root: 200},
		"where the root is another's":    {realm: own + "/token", location: "/moved?sig=%2F", below: true, root: 200},
		"with an escape in the redirect": {realm: own + "/v2/token", location: "/a%2Fb/moved", below: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := faked(t, withLogin(Registry{Path: "/team/prefix", FollowRedirects: true}), s.serve)
			wantHello(t, client, "reg.example.com")
			if !slices.Contains(s.asked, "/team/prefix/v2/team/app/blobs/"+helloDigest) {
				t.Errorf("asked for %q", s.asked)
			}
			if _, err := client.Stat(t.Context(), hello("reg.example.com"), true, nil); err != nil {
				t.Errorf("HEAD: %v", err)
			}
			page, err := client.Tags(t.Context(), oci.Ref{Registry: "reg.example.com", Repository: "team/app"}, "", new(bytes.Buffer))
			if err != nil || s.link != "" && page.Next != "last=a&n=1" && page.Next != "n=1&last=a" {
				t.Errorf("tags: %+v, %v", page, err)
			}
		})
	}
}

// A path changes nothing about who may see the login, and what is nowhere stays an error.
func TestAPathLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]site{
		"a realm elsewhere":    {realm: "https://evil.example.net/v2/token", below: true},
		"a redirect elsewhere": {realm: "/v2/token", location: "https://cdn.example.net/moved", below: true},
		"a redirect to none":   {realm: "/v2/token", location: "/nothing", below: true},
	} {
		s.link = ""
		client := faked(t, withLogin(Registry{Path: "/team/prefix", FollowRedirects: true}), func(r *http.Request) (*http.Response, error) {
			if r.URL.Hostname() != "reg.example.com" && r.Header.Get("Authorization") != "" {
				t.Errorf("%s: %s is shown %s", name, r.URL.Host, r.Header.Get("Authorization"))
			}
			return s.serve(r)
		})
		if got, err := opened(t.Context(), client, hello("reg.example.com")); err == nil {
			t.Errorf("%s: %q", name, got)
		}
		if s.location == "/nothing" && !slices.Contains(s.asked, "/team/prefix/nothing") {
			t.Errorf("%s: asked for %q", name, s.asked)
		}
	}
}

// What a gateway before a path asks for at /v2/ is asked for below the path as well.
func TestTheGreetingIsBelowThePath(t *testing.T) {
	t.Parallel()
	var asked []string
	client := faked(t, withLogin(Registry{Path: "/p", FollowRedirects: true}), func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.Path)
		switch {
		case r.Header.Get("Authorization") != "":
			return reply(200, "hello"), nil
		case r.URL.Path == "/p/v2/":
			return reply(401, "", "WWW-Authenticate", `Basic realm="x"`), nil
		default:
			return reply(403, "", "Docker-Distribution-Api-Version", "registry/2.0"), nil
		}
	})
	wantHello(t, client, "reg.example.com")
	if slices.Contains(asked, "/v2/") || !slices.Contains(asked, "/p/v2/") {
		t.Errorf("asked for %q", asked)
	}
}
