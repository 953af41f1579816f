package upstreamtest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/upstreamtest"
)

var quoted = regexp.MustCompile(`(\w+)="([^"]*)"`)

// challenge returns the parameters of the last challenge of a 401.
func challenge(t *testing.T, a answer) map[string]string {
	t.Helper()
	a.want(t, 401, "")
	all := a.Header.Values("WWW-Authenticate")
	params := map[string]string{}
	for _, m := range quoted.FindAllStringSubmatch(all[len(all)-1], -1) {
		params[m[1]] = m[2]
	}
	return params
}

// token follows a challenge and returns the token server's answer and its JSON.
func token(t *testing.T, c *http.Client, params map[string]string, headers ...string) (answer, map[string]any) {
	t.Helper()
	query := url.Values{"service": {params["service"]}}
	if params["scope"] != "" {
		query.Set("scope", params["scope"])
	}
	a := do(t, c, "GET", params["realm"]+"?"+query.Encode(), headers...)
	var v map[string]any
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatal(err)
	}
	return a, v
}

func basic(user, password string) string {
	req := http.Request{Header: http.Header{}}
	req.SetBasicAuth(user, password)
	return "Authorization: " + req.Header.Get("Authorization")
}

func TestBasicLetsInOnlyItsLogin(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t, upstreamtest.Basic("u", "p"))
	r.Fault(upstreamtest.Fault{Times: 1, Status: 500})
	c := client(t, r)
	a := do(t, c, "GET", r.URL()+"/v2/")
	a.want(t, 401, "")
	if !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Basic ") {
		t.Error(a.Header)
	}
	do(t, c, "GET", r.URL()+"/v2/", basic("u", "q")).want(t, 401, "")
	do(t, c, "GET", r.URL()+"/v2/", basic("u", "p")).want(t, 500, "") // the challenges did not use up the fault
	do(t, c, "GET", r.URL()+"/v2/", basic("u", "p")).want(t, 200, "")
	r.Fault(upstreamtest.Fault{BeforeAuth: true, Status: 502})
	do(t, c, "GET", r.URL()+"/v2/").want(t, 502, "")
}

func TestTokensAreBoundToTheirRepository(t *testing.T) {
	t.Parallel()
	for _, separate := range []bool{false, true} {
		r := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: "u", Password: "p", SeparateHost: separate, Extra: []string{"Negotiate"}}))
		c := client(t, r)
		r.PutImage("a", "t")
		r.PutImage("b", "t")
		first := do(t, c, "GET", r.URL()+"/v2/a/manifests/t")
		params := challenge(t, first)
		if params["scope"] != "repository:a:pull" || params["error"] != "" || first.Header.Get("WWW-Authenticate") != "Negotiate" {
			t.Errorf("challenge %q", first.Header.Values("WWW-Authenticate"))
		}
		if params["realm"] != "http://"+r.TokenHost()+"/Token-Service/auth" || separate == (r.TokenHost() == r.Host()) {
			t.Errorf("realm %s, registry %s", params["realm"], r.Host())
		}
		for _, headers := range [][]string{nil, {basic("u", "x")}} {
			a, _ := token(t, c, params, headers...)
			a.want(t, 401, "")
		}
		a, v := token(t, c, params, basic("u", "p"))
		a.want(t, 200, "")
		if v["expires_in"] != 300.0 {
			t.Errorf("answer %v", v)
		}
		bearer := "Authorization: Bearer " + v["token"].(string)
		do(t, c, "GET", r.URL()+"/v2/a/manifests/t", bearer).want(t, 200, "")
		do(t, c, "GET", r.URL()+"/v2/", bearer).want(t, 200, "")
		if params := challenge(t, do(t, c, "GET", r.URL()+"/v2/b/manifests/t", bearer)); params["error"] != "insufficient_scope" {
			t.Errorf("challenge %v", params)
		}
		if r.Requests()[1].Server != "token" || r.Count("", "/auth") != 3 {
			t.Errorf("recorded %+v", r.Requests())
		}
		do(t, c, "GET", params["realm"]+"?service=upstream.test&scope=repository:a:pull", basic("u", "p")).want(t, 400, "")
		do(t, c, "GET", params["realm"]+"?service=Upstream.Test&scope=repository:a:push", basic("u", "p")).want(t, 400, "")
	}
}

func TestTheTokenServerLeavesOutWhatItIsToldTo(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{OmitScope: true, OmitExpiry: true, AccessToken: true}))
	c := client(t, r)
	params := challenge(t, do(t, c, "GET", r.URL()+"/v2/a/tags/list"))
	if _, has := params["scope"]; has {
		t.Error("scope told")
	}
	denied, _ := token(t, c, params, basic("u", "p"))
	denied.want(t, 401, "")
	params["scope"] = "repository:a:pull,push repository:b:pull"
	_, v := token(t, c, params)
	if len(v) != 1 || v["access_token"] == nil {
		t.Errorf("answer %v", v)
	}
	do(t, c, "GET", r.URL()+"/v2/b/tags/list", "Authorization: Bearer "+v["access_token"].(string)).want(t, 404, "")

	other := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{Realm: "http://elsewhere/token"}))
	if params := challenge(t, do(t, c, "GET", other.URL()+"/v2/")); params["realm"] != "http://elsewhere/token" {
		t.Errorf("challenge %v", params)
	}
}

func TestTokensExpireWhenToldTo(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: "u", Password: "p", Anonymous: true}))
	c := client(t, r)
	params := challenge(t, do(t, c, "GET", r.URL()+"/v2/"))
	fresh := func(headers ...string) string {
		_, v := token(t, c, params, headers...)
		return "Authorization: Bearer " + v["token"].(string)
	}
	bearer := fresh(basic("u", "p"))
	r.RevokeTokens()
	if params := challenge(t, do(t, c, "GET", r.URL()+"/v2/", bearer)); params["error"] != "invalid_token" {
		t.Errorf("challenge %v", params)
	}
	bearer = fresh()
	r.ExpireTokensAfter(2)
	for range 2 {
		do(t, c, "GET", r.URL()+"/v2/", bearer).want(t, 200, "")
	}
	for range 2 {
		do(t, c, "GET", r.URL()+"/v2/", bearer).want(t, 401, "")
	}
	do(t, c, "GET", r.URL()+"/v2/", fresh()).want(t, 200, "")

	short := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{TTL: time.Nanosecond, ExpiredStatus: 403}))
	_, v := token(t, c, challenge(t, do(t, c, "GET", short.URL()+"/v2/")))
	if v["expires_in"] != 1.0 {
		t.Errorf("answer %v", v)
	}
	a := do(t, c, "GET", short.URL()+"/v2/", "Authorization: Bearer "+v["token"].(string))
	a.want(t, 403, "")
	a.wantHeader(t, "WWW-Authenticate", "")
}
