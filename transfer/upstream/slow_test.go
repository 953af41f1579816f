package upstream

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/oci"
)

// Sayings are what a server sends in answer to a request, byte by byte.
type sayings func(*http.Request) string

// sayer starts a server that answers requests one after the other, and keeps connections open.
func sayer(t *testing.T, say sayings) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.WriteString(c, say(req))
				}
			}()
		}
	}()
	return l.Addr().String()
}

// A redirect, a challenge or an error is told by its header. Whether its body ever comes does not
// matter.
func TestABodyThatNeverComesHoldsUpNothing(t *testing.T) {
	t.Parallel()
	const never = "\r\nContent-Length: 100\r\n\r\n"
	for name, test := range map[string]struct {
		header string // of the first answer
		want   string // "": the registry says that there is no such thing
	}{
		"a redirect":  {"HTTP/1.1 307 Temporary Redirect\r\nLocation: ?again", "hello"},
		"a challenge": {"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x", "hello"},
		"an error":    {"HTTP/1.1 404 Not Found\r\nDocker-Distribution-Api-Version: registry/2.0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := sayer(t, func(r *http.Request) string {
				if test.want != "" && (r.URL.RawQuery != "" || r.Header.Get("Authorization") != "") {
					return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
				}
				return test.header + never
			})
			c := newClient(t, withLogin(plainly(host)))
			c.named[host].home.plain.Store(true)
			began := time.Now()
			got, err := opened(t.Context(), c, hello(host))
			if took := time.Since(began); took > Within/2 {
				t.Errorf("it took %v", took)
			}
			if test.want == "" {
				wantError(t, err, oci.NotFound, "")
			} else if err != nil || got != test.want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// What can't be read as HTTP is quoted in the error, and so in the log, but not at any length.
func TestAnErrorQuotesLittleOfABrokenAnswer(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"its status": "HTTP/1.1 " + strings.Repeat("x", 100<<10) + "\r\n\r\n",
		"its length": "HTTP/1.1 200 OK\r\nContent-Length: " + strings.Repeat("x", 100<<10) + "\r\n\r\n",
		"a coding":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + strings.Repeat("x", 100<<10) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := sayer(t, func(*http.Request) string { return answer })
			c, err := New([]Registry{plainly(host)}, Registry{}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.named[host].home.plain.Store(true)
			_, err = opened(oci.Hurry(t.Context()), c, hello(host))
			if e := wantError(t, err, oci.Unavailable, ""); len(e.Error()) > 2*maxCause {
				t.Errorf("the error has %d bytes: %.300s", len(e.Error()), e)
			}
		})
	}
}
