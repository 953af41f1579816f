package upstream

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// A Meter hears what requests to one registry come to. Its methods may be called from any
// goroutine, and must return at once.
type Meter interface {
	// Asked hears of a request that was sent, to the registry or where it leads, and of the
	// status of the answer; 0: none came. kind is blob, manifest (by digest), tag, tags,
	// referrers, ping or token.
	Asked(kind string, status int)
	// Retried hears that a request which failed is tried again.
	Retried()
	// Token hears that a token was fetched.
	Token()
	// Waited hears how long a request waited for its turn.
	Waited(took time.Duration)
	// Began hears how long it took from then to the header of the answer, redirects and
	// logins included.
	Began(took time.Duration)
	// Ended hears how long it took to the answer's end, or until the request failed.
	Ended(took time.Duration)
}

// nobody is a Meter that does not count.
type nobody struct{}

func (nobody) Asked(string, int)    {}
func (nobody) Retried()             {}
func (nobody) Token()               {}
func (nobody) Waited(time.Duration) {}
func (nobody) Began(time.Duration)  {}
func (nobody) Ended(time.Duration)  {}

// kind says in a word what a asks for.
func (a ask) kind() string {
	what, name, _ := strings.Cut(a.path, "/")
	switch {
	case a.token:
		return "token"
	case what == "blobs":
		return "blob"
	case what == "manifests" && !strings.Contains(name, ":"):
		return "tag"
	case what == "manifests":
		return "manifest"
	case what == "":
		return "ping"
	default:
		return what // tags or referrers
	}
}

type kindKey struct{}

// metered returns ctx for a request that asks for a.
func (a ask) metered(ctx context.Context) context.Context {
	return context.WithValue(ctx, kindKey{}, a.kind())
}

// count counts a round trip.
func (h *home) count(req *http.Request, resp *http.Response) {
	kind, _ := req.Context().Value(kindKey{}).(string)
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	h.meter.Asked(kind, status)
}
