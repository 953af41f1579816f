package upstream

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/wait"

	"oci-proxy/transfer/oci"
)

type timeoutError struct{}

func (timeoutError) Error() string   { return "timeout awaiting response headers" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

func TestWhatIsTriedAgain(t *testing.T) {
	t.Parallel()
	status := func(code int, header ...string) func() (*http.Response, error) {
		header = append(header, "Docker-Distribution-Api-Version", "registry/2.0")
		return func() (*http.Response, error) { return reply(code, "", header...), nil }
	}
	broken := func(err error) func() (*http.Response, error) {
		return func() (*http.Response, error) { return nil, err }
	}
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	in := func(d time.Duration) string {
		return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d).Format(http.TimeFormat)
	}
	for name, c := range map[string]struct {
		answer    func() (*http.Response, error)
		tries     int
		kind      oci.Kind
		reason    string
		least     time.Duration // of fake time until the error
		most      time.Duration
		retryTold time.Duration
	}{
		"400":                        {status(400), 1, oci.Invalid, "", 0, 0, 0},
		"401":                        {status(401), 1, oci.Denied, "", 0, 0, 0},
		"403":                        {status(403), 1, oci.Denied, "", 0, 0, 0},
		"404":                        {status(404), 1, oci.NotFound, "", 0, 0, 0},
		"405":                        {status(405), 1, oci.Invalid, "does not support", 0, 0, 0},
		"416":                        {status(416), 1, oci.Invalid, "", 0, 0, 0},
		"501":                        {status(501), 1, oci.Invalid, "does not support", 0, 0, 0},
		"204":                        {status(204), 2, oci.Unavailable, "", 0, 0, 0},
		"408":                        {status(408), 3, oci.Timeout, "", 900 * time.Millisecond, 1600 * time.Millisecond, 0},
		"429":                        {status(429), 3, oci.Limited, "", 900 * time.Millisecond, 1600 * time.Millisecond, 0},
		"429 in 2 s":                 {status(429, "Retry-After", "2"), 3, oci.Limited, "", 4 * time.Second, 4 * time.Second, 2 * time.Second},
		"429 in 2 s, as a date":      {status(429, "Retry-After", in(2*time.Second)), 3, oci.Limited, "", 2 * time.Second, 4 * time.Second, 0},
		"429 in 11 s":                {status(429, "Retry-After", "11"), 1, oci.Limited, "", 0, 0, 11 * time.Second},
		"429 in an hour":             {status(429, "Retry-After", "3600"), 1, oci.Limited, "", 0, 0, time.Hour},
		"429 in 10 s":                {status(429, "Retry-After", "10"), 3, oci.Limited, "", 20 * time.Second, 20 * time.Second, 10 * time.Second},
		"429 with a past date":       {status(429, "Retry-After", in(-time.Hour)), 3, oci.Limited, "", 900 * time.Millisecond, 1600 * time.Millisecond, 0},
		"429 with nonsense":          {status(429, "Retry-After", "-1"), 3, oci.Limited, "", 900 * time.Millisecond, 1600 * time.Millisecond, 0},
		"500":                        {status(500), 3, oci.Unavailable, "", 900 * time.Millisecond, 1600 * time.Millisecond, 0},
		"502":                        {status(502), 3, oci.Unavailable, "", 900 * time.Millisecond, 1600 * time.Millisecond, 0},
		"503":                        {status(503), 3, oci.Unavailable, "", 900 * time.Millisecond, 1600 * time.Millisecond, 0},
		"503 in a minute":            {status(503, "Retry-After", "60"), 1, oci.Unavailable, "", 0, 0, time.Minute},
		"504":                        {status(504), 3, oci.Timeout, "", 900 * time.Millisecond, 1600 * time.Millisecond, 0},
		"a reset":                    {broken(&net.OpError{Op: "read", Err: syscall.ECONNRESET}), 3, oci.Unavailable, "broke", 900 * time.Millisecond, 1600 * time.Millisecond, 0},
		"an early end":               {broken(io.EOF), 3, oci.Unavailable, "broke", 900 * time.Millisecond, 1600 * time.Millisecond, 0},
		"silence":                    {broken(timeoutError{}), 3, oci.Timeout, "no answer", 900 * time.Millisecond, 1600 * time.Millisecond, 0},
		"nobody listens":             {broken(dial(syscall.ECONNREFUSED)), 2, oci.Unavailable, "connection refused", 180 * time.Millisecond, 320 * time.Millisecond, 0},
		"no such host":               {broken(dial(&net.DNSError{IsNotFound: true})), 2, oci.Unavailable, "no such host", 180 * time.Millisecond, 320 * time.Millisecond, 0},
		"the DNS is silent":          {broken(dial(&net.DNSError{IsTimeout: true})), 2, oci.Unavailable, "looked up", 180 * time.Millisecond, 320 * time.Millisecond, 0},
		"the DNS fails":              {broken(dial(&net.DNSError{IsTemporary: true})), 2, oci.Unavailable, "looked up", 180 * time.Millisecond, 320 * time.Millisecond, 0},
		"no connection in time":      {broken(dial(timeoutError{})), 2, oci.Timeout, "no connection", 180 * time.Millisecond, 320 * time.Millisecond, 0},
		"a wrong name":               {broken(x509.HostnameError{Certificate: &x509.Certificate{}}), 1, oci.Unavailable, "another name", 0, 0, 0},
		"an expired certificate":     {broken(x509.CertificateInvalidError{Reason: x509.Expired}), 1, oci.Unavailable, "expired", 0, 0, 0},
		"the guard":                  {broken(dial(&refusal{reason: "not there"})), 1, oci.Denied, "not there", 0, 0, 0},
		"a proxy wants a login":      {broken(&proxyRefusal{407}), 1, oci.Unavailable, "407", 0, 0, 0},
		"a proxy does not want to":   {broken(&proxyRefusal{403}), 1, oci.Unavailable, "refused to connect", 0, 0, 0},
		"a proxy can't reach it":     {broken(&proxyRefusal{502}), 2, oci.Unavailable, "can't reach", 180 * time.Millisecond, 320 * time.Millisecond, 0},
		"a proxy is not there":       {broken(&net.OpError{Op: "proxyconnect", Err: dial(syscall.ECONNREFUSED)}), 2, oci.Unavailable, "connection refused", 180 * time.Millisecond, 320 * time.Millisecond, 0},
		"a proxy's login is refused": {broken(&net.OpError{Op: "socks connect", Err: errors.New("no")}), 2, oci.Unavailable, "socks5", 180 * time.Millisecond, 320 * time.Millisecond, 0},
		"a malformed header":         {broken(textproto.ProtocolError("malformed MIME header line: " + canary)), 3, oci.Unavailable, "malformed", 900 * time.Millisecond, 1600 * time.Millisecond, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tries, proxy := 0, mustURL(t, "http://user:"+canary+"@proxy.example.com:3128")
				client := faked(t, Registry{FollowRedirects: true, Proxy: proxy}, func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == "/v2/" {
						return reply(200, "{}"), nil
					}
					tries++
					return c.answer()
				})
				start := time.Now()
				_, err := client.Open(t.Context(), hello("reg.example.com"), 0)
				e := wantError(t, err, c.kind, c.reason)
				if took := time.Since(start); took < c.least || took > c.most {
					t.Errorf("it took %v, want %v to %v", took, c.least, c.most)
				}
				if tries != c.tries || e.RetryAfter != c.retryTold {
					t.Errorf("%d tries, retry after %v; want %d, %v", tries, e.RetryAfter, c.tries, c.retryTold)
				}
			})
		})
	}
}

func TestATroubleThatPassesIsNotHeardOf(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func() (*http.Response, error){
		"429": func() (*http.Response, error) { return reply(429, "", "Retry-After", "1"), nil },
		"503": func() (*http.Response, error) { return reply(503, ""), nil },
		"cut": func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
					tries++
					switch {
					case tries%2 == 1:
						return trouble()
					case r.URL.Path == "/token":
						return reply(200, `{"token":"t"}`), nil
					case r.Header.Get("Authorization") == "":
						return reply(401, "", "WWW-Authenticate", `Bearer realm="/token"`), nil
					}
					return reply(200, "hello"), nil
				})
				wantHello(t, client, "reg.example.com")
			})
		})
	}
}

func TestAnErrorComesInTimeWhateverHangs(t *testing.T) {
	t.Parallel()
	hang := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	}
	stall := func(r *http.Request) (*http.Response, error) {
		resp := reply(200, "")
		resp.ContentLength = 10
		resp.Body = stalled{r.Context()}
		return resp, nil
	}
	challenge := func(then tripFunc) tripFunc {
		return func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/token" {
				return then(r)
			}
			return reply(401, "", "WWW-Authenticate", `Bearer realm="/token"`), nil
		}
	}
	slow := func(r *http.Request) (*http.Response, error) { // each hop takes almost all the time that it may
		if err := wait.For(r.Context(), headerTimeout-time.Second); err != nil {
			return nil, err
		}
		return reply(307, "", "Location", r.URL.Path+"?"+r.URL.RawQuery+"x"), nil
	}
	for name, trip := range map[string]tripFunc{
		"no answer": hang, "no end of the answer": stall, "no token": challenge(hang), "no end of the token": challenge(stall), "slow hops": slow,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := faked(t, Registry{FollowRedirects: true}, trip)
				tag := oci.Ref{Registry: "reg.example.com", Repository: "a", Tag: "b"}
				for what, ask := range map[string]func() error{
					"a manifest": func() error { _, err := client.Manifest(t.Context(), tag, nil); return err },
					"a list":     func() error { _, err := client.Tags(t.Context(), tag, "", new(bytes.Buffer)); return err },
					"referrers": func() error {
						_, err := client.Referrers(t.Context(), hello("reg.example.com"), "", new(bytes.Buffer))
						return err
					},
					"a HEAD": func() error { _, err := client.Stat(t.Context(), tag, false, nil); return err },
					"a blob": func() error { _, err := client.Open(t.Context(), hello("reg.example.com"), 0); return err },
				} {
					if name == "no end of the answer" && (what == "a blob" || what == "a HEAD") {
						continue // these do not read a body
					}
					start := time.Now()
					err := ask()
					if took := time.Since(start); took > 40*time.Second {
						t.Errorf("%s took %v", what, took)
					}
					wantError(t, err, oci.Timeout, "no answer in time")
				}
			})
		})
	}
}

// stalled is a body that never delivers and ends with its request.
type stalled struct{ ctx context.Context }

func (s stalled) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, context.Cause(s.ctx)
}

func (s stalled) Close() error { return nil }

func TestABodyMayTakeLongerThanItsHeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var body context.Context
		client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
			body = r.Context()
			return reply(200, "hello"), nil
		})
		s, err := client.Open(t.Context(), hello("reg.example.com"), 0)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // in the bubble's time
		if body.Err() != nil {
			t.Errorf("the body was ended: %v", context.Cause(body))
		}
		if err := s.Body.Close(); err != nil || body.Err() == nil {
			t.Errorf("after Close: %v, %v", err, body.Err())
		}
	})
}

func TestWhoGivesUpIsNotKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := faked(t, Registry{}, func(*http.Request) (*http.Response, error) { return reply(503, ""), nil })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := client.Open(ctx, hello("reg.example.com"), 0)
		if took := time.Since(start); err == nil || took != 100*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestUpstreamsOwnWordsArePassedOnIfTheyAreForPeople(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"errors":[{"code":"DENIED","message":"requested access is denied"}]}`: "access denied: requested access is denied",
		`{"errors":[{"code":"DENIED"}]}`:                                        "access denied: DENIED",
		`{"errors":[{"message":"a\u0000b\nc\u001b[31m"}]}`:                      "access denied: a b c [31m",
		`{"errors":[]}`:                       "access denied",
		`<html><body>Forbidden</body></html>`: "access denied",
		`{"errors":[{"message":"` + strings.Repeat("é", 500) + `"}]}`:           "access denied: " + strings.Repeat("é", maxReason),
		`{"errors":[{"message":"` + strings.Repeat("x", maxErrorBytes) + `"}]}`: "access denied",
	} {
		client := faked(t, Registry{}, func(*http.Request) (*http.Response, error) {
			return reply(403, body, "Docker-Distribution-Api-Version", "registry/2.0"), nil
		})
		_, err := client.Open(t.Context(), hello("reg.example.com"), 0)
		if e := wantError(t, err, oci.Denied, ""); e.Reason != want {
			t.Errorf("%.60s: %q, want %q", body, e.Reason, want)
		}
	}
}
