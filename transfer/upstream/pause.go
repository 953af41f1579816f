package upstream

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/oci"
)

// longestPause is how long a host is left alone at most. One that asks for more is asked
// once more then: a registry that means a day by mistake, or has got a login since, is
// not lost for a day.
const longestPause = time.Hour

// pagesPause is how long a host is left alone at most because of a page for people: what sent it
// may stand between this node and the registry, so other nodes do not hear of it either.
const pagesPause = time.Minute

// pauses remember which hosts have asked to wait: a 429 with Retry-After (RFC 6585
// section 4, RFC 9110 section 10.2.3). Until that time is over no request goes there.
// What one refuses so, it refuses to all, and each further request may make it longer.
type pauses struct {
	mu     sync.Mutex // guards the fields below; never held during I/O
	byHost *simplelru.LRU[string, pause]
}

// A pause is what one host has asked for.
type pause struct {
	since, until time.Time
	said         oci.Error // the answer that asked for it
}

// newPauses returns an empty memory.
func newPauses() *pauses { return &pauses{byHost: newMemory[string, pause](maxOutages)} }

// note notes that e asks to leave the host alone. It reports whether that is news: a
// pause that ends at about the same time is none.
func (p *pauses) note(host string, e *oci.Error) bool {
	if e.Kind != oci.Limited || e.RetryAfter <= 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	since := time.Now()
	until := since.Add(min(e.RetryAfter, longestPause))
	old, ok := p.byHost.Get(host)
	if ok && until.Before(old.until) {
		return false // two answers crossed
	}
	if ok && since.Before(old.until) {
		since = old.since // it goes on
	}
	p.byHost.Add(host, pause{since, until, *e})
	return !ok || until.Sub(old.until) >= time.Second
}

// of returns the pause of a host. It reports whether it goes on.
func (p *pauses) of(host string) (pause, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one, ok := p.byHost.Get(host)
	return one, ok && time.Now().Before(one.until)
}

// holds returns the failure of a request to a host that is to be left alone, nil if the
// host may be asked.
func (p *pauses) holds(host string) *failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	one, ok := p.byHost.Get(host)
	left := time.Until(one.until)
	if !ok || left <= 0 {
		return nil
	}
	e := one.said
	e.RetryAfter = left
	return &failure{cause: &e, again: patiently, held: true}
}

// heed notes what a request to home ended with, if it asks to wait. It returns for how long,
// if it is the registry that asks and that is news.
func (p *pauses) heed(home *home, ans *answer, err error) time.Duration {
	if err == nil && (ans.redirect != nil || !ans.is(http.StatusTooManyRequests)) {
		return 0
	}
	host, said := home.host, home.fail(oci.Limited, never, home.host, limited.reason).cause
	var page bool
	f, failed := errors.AsType[*failure](err)
	switch {
	case failed && f.held:
		return 0
	case failed:
		said, page = f.cause, f.page
	case err != nil:
		return 0
	default:
		if ans.asked == oci.Storage {
			host = hostPort(ans.url)
		}
		said.Host, said.By, said.Status = ans.host(), ans.by(), ans.resp.StatusCode
		said.RetryAfter, page = retryAfter(ans.resp.Header, time.Now()), ans.isPage()
	}
	if page = page && said.By == oci.Middlebox; page {
		said.RetryAfter = min(said.RetryAfter, pagesPause)
	}
	if !p.note(host, said) || host != home.host || page {
		return 0
	}
	return said.RetryAfter
}
