package upstream

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// examples are statuses of each row, and how often the registry is asked for a manifest
// until the verdict is final.
var examples = map[string][]int{
	"401": {401}, "403": {403}, "404, 410": {404, 410}, "407": {407}, "408, 504": {408, 504}, "429": {429},
	"405, 501": {405, 501}, "416": {416}, "451": {451}, "508": {508}, "511": {511},
	"other 4xx": {400, 402, 406, 409, 412, 418, 422, 425, 498, 499},
	"other 5xx": {500, 502, 503, 505, 507, 520, 522, 530, 599}, "others": {204, 206, 300, 304, 600, 999},
}

// givers play who gives an answer: each returns the answer of that party to a GET of a
// manifest by tag.
var givers = map[string]struct {
	verdict func(verdictRow) verdict
	by      oci.Party
	answer  func(status int) tripFunc
}{
	"the registry, by its header": {func(r verdictRow) verdict { return r.registry }, oci.Registry, func(status int) tripFunc {
		return answers(status, "", "Docker-Distribution-Api-Version", "registry/2.0")
	}},
	"the registry, by its error": {func(r verdictRow) verdict { return r.registry }, oci.Registry, func(status int) tripFunc {
		return answers(status, `{"errors":[{"code":"X","message":"as it says"}]}`, "Content-Type", "application/json")
	}},
	"a page":     {func(r verdictRow) verdict { return r.middlebox }, oci.Middlebox, func(status int) tripFunc { return answers(status, "<html>no</html>", "Content-Type", "text/html") }},
	"plain text": {func(r verdictRow) verdict { return r.middlebox }, oci.Middlebox, func(status int) tripFunc { return answers(status, "no healthy upstream", "Content-Type", "text/plain") }},
	"JSON of its own": {func(r verdictRow) verdict { return r.middlebox }, oci.Middlebox, func(status int) tripFunc {
		return answers(status, `{"message":"no Route matched"}`, "Content-Type", "application/json")
	}},
	"nothing": {func(r verdictRow) verdict { return r.middlebox }, oci.Middlebox, func(status int) tripFunc { return answers(status, "") }},
	"storage, in XML": {func(r verdictRow) verdict { return r.storage }, oci.Storage, func(status int) tripFunc {
		return leading(answers(status, "<Error/>", "Content-Type", "application/xml"))
	}},
	"storage, without words": {func(r verdictRow) verdict { return r.storage }, oci.Storage, func(status int) tripFunc { return leading(answers(status, "")) }},
	"another registry": {func(r verdictRow) verdict { return r.sibling }, oci.Storage, func(status int) tripFunc {
		return leading(answers(status, `{"errors":[{"code":"X"}]}`, "Docker-Distribution-Api-Version", "registry/2.0"))
	}},
}

// answers gives every request so, but for the registry as a whole, which asks for nothing.
func answers(status int, body string, header ...string) tripFunc {
	return func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/v2/" {
			return reply(200, "{}"), nil
		}
		return reply(status, body, header...), nil
	}
}

// leading is a registry that redirects to another host, where then answers.
func leading(then tripFunc) tripFunc {
	return func(r *http.Request) (*http.Response, error) {
		if r.URL.Host == "reg.example.com" {
			return reply(307, "", "Location", "https://cdn.example.net/x"), nil
		}
		return then(r)
	}
}

// TestVerdicts plays the table: for each row, each party and statuses of the row the
// failure is the one that the table names, and takes three requests at most.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, row := range verdicts {
		if len(examples[row.says]) == 0 {
			t.Errorf("no example of %q", row.says)
		}
		for name, g := range givers {
			for _, status := range examples[row.says] {
				if redirects := status == 300; redirects && strings.Contains(name, "storage") {
					continue
				}
				t.Run(fmt.Sprintf("%d by %s", status, name), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { playVerdict(t, status, g.verdict(row), g.by, g.answer(status)) })
				})
			}
		}
	}
}

// playVerdict asks by GET, and then by HEAD, a registry that answers by trip.
func playVerdict(t *testing.T, status int, want verdict, by oci.Party, trip tripFunc) {
	t.Helper()
	for what, ask := range map[string]func(*Client) error{
		"a tag":     func(c *Client) error { _, err := c.Manifest(t.Context(), tagged, nil); return err },
		"its HEAD":  func(c *Client) error { _, err := c.Stat(t.Context(), tagged, false, nil); return err },
		"a blob":    func(c *Client) error { _, err := c.Open(t.Context(), hello("reg.example.com"), 0); return err },
		"blob HEAD": func(c *Client) error { _, err := c.Stat(t.Context(), hello("reg.example.com"), true, nil); return err },
	} {
		if status == http.StatusPartialContent || status == http.StatusNoContent && strings.Contains(what, "HEAD") {
			continue // these are judged as content
		}
		requests := 0
		client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "reg.example.com" && r.URL.Path != "/v2/" {
				requests++
			}
			return trip(r)
		})
		err := ask(client)
		e, ok := oci.AsError(err)
		if !ok {
			t.Fatalf("%s: %v", what, err)
		}
		if status == http.StatusNetworkAuthenticationRequired || status == http.StatusProxyAuthRequired {
			by = oci.Middlebox
		}
		unsure := strings.Contains(what, "HEAD") || status < 400 // what is no error may be anybody's
		if e.Kind != want.kind || e.Status != status || e.By != by && !unsure || !strings.HasPrefix(e.Reason, want.reason) {
			t.Errorf("%s: %+v, want %v by the %v: %s", what, e, want.kind, by, want.reason)
		}
		if requests > maxRequests {
			t.Errorf("%s: %d requests", what, requests)
		}
		if e.Authoritative() && by != oci.Registry && (e.Kind == oci.Denied || e.Kind == oci.NotFound) {
			t.Errorf("%s: what %v says is final", what, e.By)
		}
	}
}

// The table in docs/registries.md is the one in the code.
func TestVerdictDoc(t *testing.T) {
	t.Parallel()
	testkit.Document(t, "../../docs/registries.md", "verdicts", verdictTable())
}

// verdictTable returns the table of verdicts for readers.
func verdictTable() string {
	var out strings.Builder
	out.WriteString("\n| status | the registry | its token server | its storage | another registry, by a redirect | something on the way |\n|---|---|---|---|---|---|\n")
	for _, row := range verdicts {
		fmt.Fprintf(&out, "| %s |", row.says)
		for _, v := range []verdict{row.registry, row.tokenServer, row.storage, row.sibling, row.middlebox} {
			fmt.Fprintf(&out, " %s, %s |", v.kind, [...]string{"final", "tried twice", "tried three times", "asked once more, at once"}[v.again])
		}
		out.WriteString("\n")
	}
	out.WriteString("\n")
	return out.String()
}
