// Package upstream asks registries. It opens blobs, gets manifests and lists over
// the OCI distribution API, and no other code of this program does so.
//
// A request is built from parsed fields alone, so nothing that a client sent can
// reach a registry as it is, but for what selects a page of a list (oci.Query). Its way, from the top down:
//
//	blob.go, manifest.go, list.go   what is asked, and what an answer must look like
//	link.go                         where a list goes on
//	greet.go                        what a registry says of a login, for operators
//	tell.go                         how far each request came, for operators
//	turns.go, rate.go               whose turn it is, and how fast blobs may come
//	retry.go, timeouts.go           what is tried again, how often and for how long
//	registry.go, pass.go, login.go  challenges, and who may see credentials
//	accounts.go, account.go, round.go  several logins of one registry
//	token.go, tokenserver.go        tokens
//	redirect.go                     hops: the registry, and where its redirects lead
//	guard.go, names.go, addresses.go  where a hop may lead
//	transport.go, proxy.go          connections: TLS or not, by which proxy
//	trip.go, outage.go, dial.go     how long one is waited for, and what is out of reach
//	doubts.go                       addresses of a name that answer nothing
//
// And the answer's way back: answer.go reads it, party.go tells who gave it, and
// failure.go what it means if it is no success.
//
// Two rules hold everywhere. Credentials stay with the scheme, host and port that
// they were configured for, and the token servers that may see them. No URL of a
// redirect, no query and no credential gets into a log or an error.
package upstream

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// Version is this program's version in the User-Agent header. Set it before New.
var Version = "dev"

// A Client asks registries. It is safe for concurrent use.
type Client struct {
	life *wait.Life // of token requests
	log  *slog.Logger

	mu   sync.RWMutex // guards the field below; never held during I/O
	cast              // see now
}

var _ oci.Upstream = (*Client)(nil)

// New returns a client for the given registries. Any other registry is asked as
// fallback describes, but always anonymously, over HTTPS on port 443 and at public
// addresses. The error joins everything that is wrong with the arguments.
func New(registries []Registry, fallback Registry, log *slog.Logger) (*Client, error) {
	c := &Client{life: wait.NewLife(), log: log}
	var err error
	if c.cast, err = newCast(registries, fallback, cast{}, c.life, log); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// now returns the registries of the moment.
func (c *Client) now() cast {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.cast
}

// Prepare makes other registries ready, as New does. Until commit is called nothing has
// changed. From then on they are asked; what is under way goes on with those before. Only one
// may be prepared at a time. The error joins everything that is wrong.
func (c *Client) Prepare(registries []Registry, fallback Registry) (commit func(), err error) {
	was := c.now()
	next, err := newCast(registries, fallback, was, c.life, c.log)
	if err != nil {
		return nil, err
	}
	return func() {
		c.mu.Lock()
		c.cast = next
		c.mu.Unlock()
		was.leave(next)
	}, nil
}

// Close ends the token requests under way and closes idle connections. Streams that
// are open go on. No request may begin after it.
func (c *Client) Close() {
	atOnce, cancel := context.WithCancel(context.Background())
	cancel()
	c.life.Close(atOnce)
	now := c.now()
	for _, r := range now.named {
		r.net.closeIdle()
	}
	for _, r := range now.strangers.all() {
		r.net.closeIdle()
	}
}

// Greet asks a registry for /v2/, as a client does that logs in, and says what it
// thinks of the configured logins, the first one that it refuses if it refuses any. For
// each it makes three requests at most and tries nothing twice; no tag or blob is asked for. The error is an *oci.Error that says what keeps
// the registry from being asked: DNS, connection, TLS, a wrong login, a host that is no
// registry. ctx bounds it.
func (c *Client) Greet(ctx context.Context, host string) (Greeting, error) {
	r, err := c.registry(host)
	if err != nil {
		return Greeting{}, causeOf(err)
	}
	return r.accounts.greet(ctx, r.hops)
}

// registry returns the registry at host.
func (c *Client) registry(host string) (*registry, error) {
	now := c.now()
	if r := now.named[host]; r != nil {
		return r, nil
	}
	return now.strangers.get(host)
}

// asking returns the registry of ref. It checks ref once more: no path may leave
// its repository, whatever the caller did.
func (c *Client) asking(ref oci.Ref) (*registry, error) {
	r, err := c.registry(ref.Registry)
	if err != nil {
		return nil, err
	}
	repo := "/" + ref.Repository
	if repo == "/" || path.Clean(repo) != repo || strings.ContainsAny(ref.Tag, "/\\") || ref.Tag == ".." {
		return nil, r.home.fail(oci.Invalid, never, r.home.host, "the name of the repository or tag is not valid").cause
	}
	if ref.Digest != "" && !oci.Verifiable(string(ref.Digest)) && ref.Digest.Validate() != nil {
		return nil, r.home.fail(oci.Invalid, never, r.home.host, "the digest is not valid").cause
	}
	return r, nil
}

// Standings returns how the registries do, in the order of their hosts: those given to New,
// and of the others those asked last, 256 at most.
func (c *Client) Standings() []Standing {
	var out []Standing
	now := c.now()
	for _, r := range now.named {
		out = append(out, standingOf(r))
	}
	for _, r := range now.strangers.all() {
		out = append(out, standingOf(r))
	}
	slices.SortFunc(out, func(a, b Standing) int { return cmp.Compare(a.Host, b.Host) })
	return out
}

// Low reports whether a registry says that less than that percentage of its rate limit is
// left: of those of each of its accounts, if it has several. It is false for one that has not been asked, and for percent 0. It does no I/O.
func (c *Client) Low(registry string, percent int) bool {
	r := c.now().named[registry]
	switch {
	case r == nil || percent <= 0:
		return false
	case len(r.accounts.all) > 1:
		return r.accounts.low(percent)
	default:
		return r.home.standing.low(percent)
	}
}

// Refused lists the logins that the registry refuses: registries.HOST and the name of the
// account, in order.
func (c *Client) Refused() (accounts []string) {
	for host, r := range c.now().named {
		for _, name := range r.accounts.wrong() {
			accounts = append(accounts, "registries."+host+"."+name)
		}
	}
	slices.Sort(accounts)
	return accounts
}

// Pause has the registry left alone for that time, an hour at most: it has told another
// member so. A registry that this node has not asked yet is not remembered.
func (c *Client) Pause(registry string, d time.Duration) {
	now := c.now()
	r := now.named[registry]
	if r == nil {
		r = now.strangers.known(registry)
	}
	if r == nil {
		return
	}
	e := r.home.fail(oci.Limited, never, r.home.host, limited.reason+", as it told another node of the cluster").cause
	e.By, e.Status, e.RetryAfter, e.Relayed = oci.Registry, http.StatusTooManyRequests, d, true
	r.net.pauses.note(r.home.host, e)
}
