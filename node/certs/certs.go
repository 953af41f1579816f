// Package certs gets certificates for the clients' port from an ACME server (RFC 8555), renews
// them, and shares them with the other members of the cluster. It is the one room that knows
// certmagic, which speaks ACME and keeps accounts, certificates and challenges in a store.
//
// That store is the shelf: a few records, all of which every member has in memory and on its
// own disk. One member is the keeper (keeper.go): it numbers what is written and lends the
// locks that certmagic asks for, so that one node asks the authority and all others take what
// it got. Members pull from the keeper what is new, and the keeper from them (sync.go); after a
// keeper's death the next one hears first what all others have, and which locks they hold. A
// node that reaches no keeper writes to its own shelf, and the others pull that later.
//
// Each name has a goroutine that minds it (mind.go). Handshakes read memory only (pairs.go),
// but those of the challenge TLS-ALPN-01 (challenge.go): that one is answered by whichever
// member the authority reaches, since its token is on the shelf too.
//
// Read certs.go, then mind.go, storage.go (certmagic's view of the shelf), shelf.go, folder.go,
// record.go, leases.go, times.go.
package certs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"

	"github.com/caddyserver/certmagic"

	"oci-proxy/transfer/wait"
)

// Members are the members of this node's cluster that keep certificates. Its methods but Ask
// answer at once.
type Members interface {
	Self() string     // this node's id
	Keeper() string   // the id of the keeper by now, "" if there is none
	Others() []string // the ids of the others
	// Ask asks one of them: its Certs.Answer gets the question and the asker's id.
	Ask(ctx context.Context, id string, question []byte) (json.RawMessage, error)
}

// Settings say which certificates are wanted.
type Settings struct {
	Domains   []string // lower case; the first is for clients that ask for none of them
	Email     string   // "": none
	Directory string   // URL of the ACME server's directory
	CAFile    string   // PEM file of authorities to trust beside the system's when the server is asked, "": none
	Asks      bool     // this node may ask the server; if not, it waits for what others get
}

// equal reports whether both want the same.
func (s Settings) equal(o Settings) bool {
	return slices.Equal(s.Domains, o.Domains) && s.Email == o.Email && s.Directory == o.Directory && s.CAFile == o.CAFile && s.Asks == o.Asks
}

// Config is what Certs work with. All fields are needed.
type Config struct {
	Settings Settings
	Dir      string // the folder of the shelf; it is made, and narrowed to 0700
	// Proxy is the way to the ACME server, as http.Transport.Proxy.
	Proxy func(*http.Request) (*url.URL, error)
	Log   *slog.Logger
}

// Certs are the certificates of a node.
type Certs struct {
	log        *slog.Logger
	proxy      func(*http.Request) (*url.URL, error)
	shelf      *shelf
	keeper     *keeper
	pairs      *pairs
	challenges *challenges
	cache      *certmagic.Cache
	issuer     atomic.Pointer[issuer]
	states     states
	ordering   atomic.Int32 // orders that are under way
	life       *wait.Life
	changed    chan struct{} // holds a value if the settings have changed
	first      chan struct{} // closed once the others' certificates were looked for
	at         net.Addr      // of the clients' port; set by Run
}

// Open reads what is on the disk. A folder that cannot be used is no error: Health says so, and
// certificates are kept in memory. An error is one of the settings. Close the Certs.
func Open(cfg Config) (*Certs, error) {
	c := &Certs{
		log: cfg.Log, proxy: cfg.Proxy, shelf: openShelf(cfg.Dir), life: wait.NewLife(),
		changed: make(chan struct{}, 1), first: make(chan struct{}),
	}
	c.keeper = newKeeper(c.shelf, c.life, cfg.Log)
	c.challenges = newChallenges(c.life)
	var err error
	if c.pairs, err = newPairs(c.shelf.folder); err != nil {
		return nil, err
	}
	c.cache = newCache()
	prepared, err := c.Prepare(cfg.Settings)
	if err != nil {
		c.cache.Stop()
		return nil, err
	}
	prepared()
	<-c.changed
	return c, nil
}

// Join makes the node one of those members; nil: it is on its own. Call it before Run, and
// before any member asks.
func (c *Certs) Join(members Members) { c.keeper.join(members) }

// Prepare makes other settings ready. Until commit is called nothing has changed. An error
// names the file that cannot be used.
func (c *Certs) Prepare(s Settings) (commit func(), err error) {
	next, err := newIssuer(c, s)
	if err != nil {
		return nil, err
	}
	return func() {
		if c.ordering.Load() > 0 && s.equal(c.issuer.Load().settings) {
			return // a reload of something else does not cut an order
		}
		c.issuer.Store(next)
		c.pairs.install(s.Domains, next.key(), c.shelf)
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}, nil
}

// Run gets and renews certificates until ctx ends. at is the clients' port, where the challenge
// is answered.
func (c *Certs) Run(ctx context.Context, at net.Addr) {
	c.at = at
	c.keeper.sync(ctx)
	c.install()
	close(c.first)
	c.life.Go(func() { c.follow(ctx) })
	for rests := true; ctx.Err() == nil; rests = false { // after a reload all is tried at once
		now, end := context.WithCancel(ctx)
		minded := make(chan struct{})
		go func() {
			defer close(minded)
			c.mindAll(now, rests)
		}()
		select {
		case <-c.changed:
		case <-ctx.Done():
		}
		end()
		<-minded
	}
}

// AwaitFirst waits until the others' certificates were looked for, which takes Run a moment, or
// ctx ends.
func (c *Certs) AwaitFirst(ctx context.Context) {
	select {
	case <-c.first:
	case <-ctx.Done():
	}
}

// install takes certificates from the shelf into use.
func (c *Certs) install() {
	i := c.issuer.Load()
	for _, name := range c.pairs.install(i.settings.Domains, i.key(), c.shelf) {
		cert := c.pairs.of(name)
		c.log.Info("certificate in use", "domain", name, "until", cert.Leaf.NotAfter, "issuer", cert.Leaf.Issuer.String())
	}
}

// follow takes into use what comes, from whichever member, and asks the others for it.
func (c *Certs) follow(ctx context.Context) {
	for ctx.Err() == nil {
		came := c.shelf.changes()
		c.install()
		soon, cancel := context.WithTimeout(ctx, syncEvery)
		select {
		case <-came:
		case <-soon.Done():
			c.keeper.sync(ctx)
			c.shelf.saveAgain()
		}
		cancel()
	}
}

// Answer answers what the member of id sender asks, at most 64 KiB of JSON. What it returns
// becomes at most 1 MiB of JSON, and may hold private keys.
func (c *Certs) Answer(ctx context.Context, sender string, question []byte) (any, error) {
	q, err := parseQuestion(question)
	if err != nil {
		return nil, err
	}
	return c.keeper.answer(ctx, sender, q)
}

// Server returns how the clients' port speaks TLS. Each handshake shows the certificate of the
// moment for the name that the client asks for, or else the first one. While there is none it
// shows one that nobody trusts.
func (c *Certs) Server() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetCertificate:     func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pairs.show(h.ServerName), nil },
		GetConfigForClient: c.challenged,
	}
}

// Close ends what is under way, at the latest when ctx ends.
func (c *Certs) Close(ctx context.Context) {
	c.life.Close(ctx)
	c.cache.Stop()
	if err := c.shelf.failure(); err != nil {
		c.log.Warn("certificates were not kept on disk", "error", fmt.Errorf("%s: %w", c.shelf.folder, err))
	}
}
