package upstream

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// TestRefusalsTellWhoGaveThem tries refusals in the forms that real servers send.
func TestRefusalsTellWhoGaveThem(t *testing.T) {
	t.Parallel()
	type shape = upstreamtest.Fault
	for name, c := range map[string]struct {
		fault shape
		kind  oci.Kind
		by    oci.Party
	}{
		"S3, an expired link":         {upstreamtest.S3Expired(), oci.Unavailable, oci.Storage},
		"S3, a wrong clock":           {upstreamtest.S3Skewed(), oci.Unavailable, oci.Storage},
		"S3, no such object":          {upstreamtest.S3Missing(), oci.Unavailable, oci.Storage},
		"CloudFront blocks":           {upstreamtest.CloudFrontBlocked(), oci.Unavailable, oci.Storage},
		"Azure, an expired link":      {upstreamtest.AzureExpired(), oci.Unavailable, oci.Storage},
		"storage that says it is one": {shape{Match: upstreamtest.Match{Server: "cdn"}, Status: 404, Header: http.Header{"Docker-Distribution-Api-Version": {"registry/2.0"}}}, oci.NotFound, oci.Storage},
		"a firewall's page":           {upstreamtest.FirewallPage(), oci.Unavailable, oci.Middlebox},
		"a firewall says nothing":     {upstreamtest.FirewallSilent(), oci.Unavailable, oci.Middlebox},
		"a portal's page":             {upstreamtest.PortalPage(), oci.Corrupt, oci.Middlebox},
		"a portal's status":           {upstreamtest.PortalStatus(), oci.Unavailable, oci.Middlebox},
		"a balancer":                  {upstreamtest.BalancerPage(), oci.Unavailable, oci.Middlebox},
		"Quay denies":                 {upstreamtest.QuayError(403, "DENIED"), oci.Denied, oci.Registry},
		"Quay does not know":          {upstreamtest.QuayError(404, "MANIFEST_UNKNOWN"), oci.NotFound, oci.Registry},
		"ECR wants a login":           {upstreamtest.ECRError(), oci.Denied, oci.Registry},
		"the registry denies":         {shape{Status: 403}, oci.Denied, oci.Registry},
		"the registry does not know":  {shape{Status: 404}, oci.NotFound, oci.Registry},
		"the registry is busy":        {shape{Status: 503, Header: http.Header{"Retry-After": {"99"}}}, oci.Unavailable, oci.Registry},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := upstreamtest.New(t, upstreamtest.Redirect(), upstreamtest.RedirectManifests())
			reg.PutManifest("team/app", "latest", upstreamtest.TypeManifest, []byte(`{}`))
			if c.kind == oci.Unavailable {
				c.fault.Header.Set("Retry-After", "99") // so long that the client does not wait for it
			}
			reg.Fault(c.fault)
			_, err := newClient(t, plainly(reg.Host())).Manifest(t.Context(), oci.Ref{Registry: reg.Host(), Repository: "team/app", Tag: "latest"}, nil)
			wantParty(t, err, c.kind, c.by)
		})
	}
}

// wantParty fails the test unless err is of that kind and comes from that party.
func wantParty(t *testing.T, err error, kind oci.Kind, by oci.Party) {
	t.Helper()
	e := wantError(t, err, kind, "")
	if e.By != by || e.Authoritative() != (by == oci.Registry || by == oci.TokenServer) {
		t.Errorf("%v: given by the %v, want the %v", e, e.By, by)
	}
}

// TestHeadsTellWhoGaveThem checks this for HEADs: they have no body, so only the header
// tells who answered.
func TestHeadsTellWhoGaveThem(t *testing.T) {
	t.Parallel()
	const api = "Docker-Distribution-Api-Version"
	for name, c := range map[string]struct {
		answer *http.Response
		by     oci.Party
	}{
		"the API's header":                 {reply(404, "", api, "registry/2.0"), oci.Registry},
		"the API's header on a page":       {reply(404, "", api, "registry/2.0", "Content-Type", "text/html"), oci.Registry},
		"Quay, GitHub Enterprise: JSON":    {reply(404, "", "Content-Type", "application/json"), oci.Registry},
		"Harbor: JSON with a charset":      {reply(404, "", "Content-Type", "application/json; charset=utf-8"), oci.Registry},
		"early Harbor: a bearer challenge": {reply(401, "", "WWW-Authenticate", `Bearer realm="ftp://nowhere"`), oci.Registry},
		"ECR: a basic challenge":           {reply(401, "", "WWW-Authenticate", "Basic realm=r", "Content-Type", "text/plain"), oci.Registry},
		"a proxy's challenge":              {reply(401, "", "WWW-Authenticate", "Negotiate"), oci.Middlebox},
		"early Nexus, no HEAD: a page":     {reply(404, "", "Content-Type", "text/html"), oci.Middlebox},
		"Go's own 404":                     {reply(404, "", "Content-Type", "text/plain; charset=utf-8"), oci.Middlebox},
		"nothing":                          {reply(403, ""), oci.Middlebox},
		"a proxy wants a login":            {reply(407, "", api, "registry/2.0"), oci.Middlebox},
		"JSON with a broken parameter":     {reply(404, "", "Content-Type", "application/json;;"), oci.Registry},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := faked(t, Registry{}, func(*http.Request) (*http.Response, error) { return c.answer, nil })
			r := client.named["reg.example.com"]
			a := ask{method: http.MethodHead, repo: "team/app", path: "manifests/1", budget: newBudget()}
			ans, err := r.hops.follow(t.Context(), a, pass{})
			if err != nil || ans.by() != c.by {
				t.Errorf("%+v, %v: given by the %v, want the %v", ans, err, ans.by(), c.by)
			}
		})
	}
}

func TestContentTellsWhoGaveIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options []upstreamtest.Option
		fault   *upstreamtest.Fault
		by      oci.Party
	}{
		"the registry":    {nil, nil, oci.Registry},
		"its storage":     {[]upstreamtest.Option{upstreamtest.Redirect(), upstreamtest.RedirectManifests()}, nil, oci.Storage},
		"a portal's page": {nil, new(upstreamtest.PortalPage()), oci.Middlebox},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := upstreamtest.New(t, c.options...)
			reg.PutBlob("team/app", []byte("hello"))
			reg.PutManifest("team/app", "latest", upstreamtest.TypeManifest, []byte(`{}`))
			if c.fault != nil {
				reg.Fault(*c.fault)
			}
			client := newClient(t, plainly(reg.Host()))
			s, err := client.Open(t.Context(), hello(reg.Host()), 0)
			if err != nil || s.By != c.by {
				t.Fatalf("blob: %+v, %v; want it by the %v", s, err, c.by)
			}
			_ = s.Body.Close()
			d, err := client.Stat(t.Context(), hello(reg.Host()), true, nil)
			if c.by == oci.Middlebox {
				wantParty(t, err, oci.Corrupt, c.by)
			} else if err != nil || d.By != c.by {
				t.Errorf("HEAD: %+v, %v; want it by the %v", d, err, c.by)
			}
			m, err := client.Manifest(t.Context(), oci.Ref{Registry: reg.Host(), Repository: "team/app", Tag: "latest"}, nil)
			if c.by == oci.Middlebox {
				wantParty(t, err, oci.Corrupt, c.by)
			} else if err != nil || m.By != c.by {
				t.Errorf("manifest: %+v, %v; want it by the %v", m, err, c.by)
			}
			p, err := client.Tags(t.Context(), oci.Ref{Registry: reg.Host(), Repository: "team/app"}, "", new(bytes.Buffer))
			if c.by == oci.Middlebox {
				wantParty(t, err, oci.Corrupt, c.by)
			} else if err != nil || p.By != oci.Registry { // a list is not redirected
				t.Errorf("list: %+v, %v", p, err)
			}
		})
	}
}

func TestTokenServersAndWhatStandsInFrontOfThem(t *testing.T) {
	t.Parallel()
	const api = "Docker-Distribution-Api-Version"
	for name, c := range map[string]struct {
		answer *http.Response
		kind   oci.Kind
		by     oci.Party
	}{
		"Docker Hub: JSON":             {reply(401, `{"details":"incorrect username or password"}`, "Content-Type", "application/json"), oci.Denied, oci.TokenServer},
		"GHCR: an OCI error":           {reply(403, `{"errors":[{"code":"DENIED","message":"denied"}]}`), oci.Denied, oci.TokenServer},
		"docker_auth: a challenge":     {reply(401, "Auth failed.", "WWW-Authenticate", `Basic realm="x"`, "Content-Type", "text/plain"), oci.Denied, oci.TokenServer},
		"the API's header":             {reply(403, "", api, "registry/2.0"), oci.Denied, oci.TokenServer},
		"an answer without a token":    {reply(200, `{}`, "Content-Type", "application/json"), oci.Unavailable, oci.TokenServer},
		"a firewall's page":            {reply(403, "<html>", "Content-Type", "text/html"), oci.Unavailable, oci.Middlebox},
		"a firewall's plain text":      {reply(403, "blocked", "Content-Type", "text/plain"), oci.Unavailable, oci.Middlebox},
		"a portal's page":              {reply(200, "<html>", "Content-Type", "text/html"), oci.Unavailable, oci.Middlebox},
		"a proxy that wants a login":   {reply(407, ""), oci.Unavailable, oci.Middlebox},
		"a redirect to another server": {reply(302, "", "Location", "https://sso.example.net/login"), oci.Unavailable, oci.Middlebox},
		"a redirect on its own server": {reply(302, "", "Location", "/denied"), oci.Denied, oci.TokenServer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := faked(t, withLogin(Registry{}), func(r *http.Request) (*http.Response, error) {
				switch {
				case r.URL.Path == "/token":
					return c.answer, nil
				case r.URL.Host == "sso.example.net", r.URL.Path == "/denied":
					return reply(403, `{"errors":[{"code":"DENIED"}]}`, api, "registry/2.0"), nil
				}
				return reply(401, "", "WWW-Authenticate", `Bearer realm="https://auth.example.com/token"`), nil
			})
			_, err := client.Open(t.Context(), hello("reg.example.com"), 0)
			wantParty(t, err, c.kind, c.by)
		})
	}
}

// TestRedirectsTellWhoGaveThem checks who counts as the author of what comes after a
// redirect. Over TLS only the holder of the registry's certificate can redirect. Without
// TLS anybody can.
func TestRedirectsTellWhoGaveThem(t *testing.T) {
	t.Parallel()
	denied := func() *http.Response {
		return reply(403, `{"errors":[{"code":"DENIED"}]}`, "Docker-Distribution-Api-Version", "registry/2.0")
	}
	for name, c := range map[string]struct {
		plain    bool
		location string
		header   []string // of the redirect
		handOver bool
		kind     oci.Kind
		by       oci.Party
	}{
		"over TLS to storage":                 {location: "https://cdn.example.net/x", kind: oci.Unavailable, by: oci.Storage},
		"over TLS to its own server":          {location: "/x", kind: oci.Denied, by: oci.Registry},
		"over TLS, there and back":            {location: "https://cdn.example.net/back", kind: oci.Unavailable, by: oci.Storage},
		"over TLS, down to http":              {location: "http://login.example.net/", kind: oci.Unavailable, by: oci.Nobody},
		"over TLS to an inside address":       {location: "https://10.0.0.1/", kind: oci.Denied, by: oci.Nobody},
		"over TLS, handed over":               {location: "https://cdn.example.net/x", handOver: true, by: oci.Registry},
		"in the clear to a portal":            {plain: true, location: "http://login.example.net/", kind: oci.Unavailable, by: oci.Middlebox},
		"in the clear, with the API header":   {plain: true, location: "http://cdn.example.net/x", header: []string{"Docker-Distribution-Api-Version", "registry/2.0"}, kind: oci.Unavailable, by: oci.Storage},
		"in the clear, handed over":           {plain: true, location: "http://login.example.net/", handOver: true, by: oci.Middlebox},
		"in the clear, to another scheme":     {plain: true, location: "ftp://login.example.net/", kind: oci.Unavailable, by: oci.Middlebox},
		"in the clear, nowhere":               {plain: true, location: "", kind: oci.Unavailable, by: oci.Middlebox},
		"over TLS, nowhere":                   {location: "", kind: oci.Unavailable, by: oci.Registry},
		"over TLS to a host of the same name": {location: "https://reg.example.com:8443/x", kind: oci.Unavailable, by: oci.Storage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := faked(t, Registry{Insecure: c.plain, FollowRedirects: !c.handOver}, func(r *http.Request) (*http.Response, error) {
				switch {
				case r.URL.Path == "/back":
					return reply(302, "", "Location", "https://reg.example.com/v2/else"), nil
				case r.URL.Host == "reg.example.com" && strings.HasPrefix(r.URL.Path, "/v2/team/"):
					return reply(302, "", append(c.header, "Location", c.location)...), nil
				}
				return denied(), nil
			})
			client.named["reg.example.com"].home.plain.Store(c.plain)
			s, err := client.Open(t.Context(), hello("reg.example.com"), 0)
			if c.handOver {
				if err != nil || s.Redirect != c.location || s.By != c.by {
					t.Errorf("%+v, %v; want it by the %v", s, err, c.by)
				}
				return
			}
			wantParty(t, err, c.kind, c.by)
		})
	}
}

func TestWithoutAnAnswerNobodyIsNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err error
		by  oci.Party
	}{
		"a refusal of our own":      {&refusal{reason: "not there"}, oci.Nobody},
		"a broken certificate":      {errors.New("tls: bad"), oci.Nobody},
		"a proxy's CONNECT refused": {&proxyRefusal{403}, oci.Middlebox},
		"a proxy wants a login":     {&proxyRefusal{407}, oci.Middlebox},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newClientFor(t, Registry{Host: "reg.example.com", Configured: true})
			through := &trip{proxy: mustURL(t, "http://proxy.example.com")}
			req := (&http.Request{Method: http.MethodGet, URL: mustURL(t, "https://reg.example.com/")}).WithContext(t.Context())
			if f := broken(r.home, req, through, c.err); f.By != c.by {
				t.Errorf("%v: given by the %v, want the %v", f, f.By, c.by)
			}
		})
	}
}

// FuzzParty checks that an answer from another host never counts as the registry's or its
// token server's, whatever it looks like.
func FuzzParty(f *testing.F) {
	f.Add(403, "registry/2.0", "application/json", "Bearer realm=x", `{"errors":[{"code":"DENIED"}]}`, true)
	f.Add(404, "", "text/html", "", "<html>", false)
	f.Add(200, "registry/2.0", "text/html", "", "", true)
	f.Add(302, "registry/2.0", "", "", "", false)
	f.Fuzz(func(t *testing.T, status int, api, kind, challenge, body string, head bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		for _, asked := range []oci.Party{oci.Registry, oci.TokenServer, oci.Storage, oci.Middlebox} {
			resp := reply(status, body, "Docker-Distribution-Api-Version", api, "Content-Type", kind, "WWW-Authenticate", challenge)
			resp.Request = &http.Request{Method: method}
			a := &answer{resp: resp, url: &url.URL{Scheme: "https"}, asked: asked}
			_, a.oci = saidBy(resp)
			if by := a.by(); by != asked && by != oci.Middlebox {
				t.Errorf("the %v's answer is taken for the %v's", asked, by)
			}
			if next := a.askedNext(false); next != oci.Storage && next != oci.Middlebox {
				t.Errorf("the %v's redirect leads to the %v", asked, next)
			}
		}
	})
}
