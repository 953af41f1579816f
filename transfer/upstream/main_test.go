package upstream

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// canary is in every password of these tests. It must never get into a log, an error
// or a request to the wrong host.
const canary = "canary-7f3a"

// newClient returns a client for registries. When the test ends, its debug log is
// checked for the canary.
func newClient(t *testing.T, registries ...Registry) *Client {
	t.Helper()
	var log testkit.Log
	c, err := New(registries, Registry{FollowRedirects: true}, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if log.Has(canary) {
			t.Errorf("a secret is in the log:\n%s", log.String())
		}
	})
	return c
}

// plainly returns the config of a registry on loopback that speaks plain HTTP.
func plainly(host string) Registry {
	return Registry{Host: host, Configured: true, Insecure: true, FollowRedirects: true}
}

// withLogin returns r with credentials.
func withLogin(r Registry) Registry {
	r.Username, r.Password = "user", canary
	return r
}

// server starts handler over plain HTTP and returns its host:port.
func server(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// A tripFunc stands in for a registry's network.
type tripFunc func(*http.Request) (*http.Response, error)

func (f tripFunc) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := f(req)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

// faked returns a client for reg.example.com whose network is trip.
func faked(t *testing.T, cfg Registry, trip tripFunc) *Client {
	t.Helper()
	cfg.Host, cfg.Configured = "reg.example.com", true
	c := newClient(t, cfg)
	r := c.named[cfg.Host]
	r.net.own, r.net.elsewhere = trip, trip
	return c
}

// reply returns an answer. header holds names and values in turn.
func reply(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	return &http.Response{
		StatusCode: status, Header: h, ContentLength: int64(len(body)),
		Body: io.NopCloser(strings.NewReader(body)),
	}
}

const helloDigest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // of "hello"

// hello names a blob of "hello" at host.
func hello(host string) oci.Ref {
	return oci.Ref{Registry: host, Repository: "team/app", Digest: helloDigest}
}

// opened opens ref and returns all of its bytes.
func opened(ctx context.Context, c *Client, ref oci.Ref) (string, error) {
	s, err := c.Open(ctx, ref, 0)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(s.Body)
	return string(b), errors.Join(err, s.Body.Close())
}

// wantHello fails the test unless host's blob reads "hello".
func wantHello(t *testing.T, c *Client, host string) {
	t.Helper()
	if got, err := opened(t.Context(), c, hello(host)); err != nil || got != "hello" {
		t.Fatalf("Open: %q, %v; want hello", got, err)
	}
}

// wantError fails the test unless err is of that kind, its reason holds reason, and
// it tells no secret.
func wantError(t *testing.T, err error, kind oci.Kind, reason string) *oci.Error {
	t.Helper()
	e, ok := errors.AsType[*oci.Error](err)
	if !ok {
		t.Fatalf("error %v (%T), want an oci.Error", err, err)
	}
	if e.Kind != kind || !strings.Contains(e.Reason, reason) {
		t.Errorf("error %v of kind %v, want %v with %q", e, e.Kind, kind, reason)
	}
	if strings.Contains(err.Error(), canary) {
		t.Errorf("a secret is in the error %q", err)
	}
	return e
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
