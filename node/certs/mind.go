package certs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"oci-proxy/transfer/wait"
)

// mindAll minds each domain of the settings until ctx ends. rests: failures from before are heeded.
func (c *Certs) mindAll(ctx context.Context, rests bool) {
	i := c.issuer.Load()
	i.listen(c.at)
	c.states.begin(i.settings.Domains)
	var wg sync.WaitGroup
	for _, domain := range i.settings.Domains {
		wg.Go(func() { (&minder{Certs: c, issuer: i, domain: domain, rests: rests, began: time.Now()}).run(ctx) })
	}
	wg.Wait()
}

// A minder looks after the certificate of one domain.
type minder struct {
	*Certs
	issuer *issuer
	domain string
	rests  bool // failures from before it began are heeded
	began  time.Time
	own    failure // this node's last one since then, whatever became of it on the shelf
	ownAt  time.Time
}

// run gets and renews the certificate until ctx ends.
func (m *minder) run(ctx context.Context) {
	for ctx.Err() == nil {
		came := m.shelf.changes()
		next := m.look(ctx)
		if !m.needs(time.Now()) {
			came = nil // nothing that comes matters
		}
		if next > 0 {
			_ = wait.Until(ctx, came, next) // ctx ends the loop
		}
	}
}

// look does what is to be done now, and returns after how long there is more.
func (m *minder) look(ctx context.Context) (next time.Duration) {
	now := time.Now()
	if !m.needs(now) {
		m.states.note(m.domain, nil)
		return m.pause()
	}
	m.keeper.sync(ctx)
	m.install()
	if !m.needs(now) {
		return 0
	}
	last := m.lastFailure()
	if left, why := m.rest(last, now); left > 0 {
		m.states.note(m.domain, errors.New(why))
		return min(left, syncEvery)
	}
	if !m.issuer.settings.Asks {
		m.states.note(m.domain, errWaits)
		return syncEvery
	}
	lent, err := m.keeper.tryLock(ctx, m.lockName())
	if !lent {
		if err != nil {
			m.states.note(m.domain, fmt.Errorf("no lock from the member that keeps certificates: %w", err))
		}
		return 2 * stepTime
	}
	defer m.giveBack(ctx)
	m.order(ctx, last)
	return 0
}

// rest is how long nobody is to ask, and why: for the last failure that all know, unless it is
// older than a reload, and for this node's own.
func (m *minder) rest(last failure, now time.Time) (left time.Duration, why string) {
	if m.rests || last.At.After(m.began) {
		left, why = last.rest(now), last.Error
	}
	if own := m.own.pause() - time.Since(m.ownAt); own > left {
		left, why = own, m.own.Error
	}
	return left, why
}

var errUseless = errors.New("the certificate of the authority cannot be used: it is for another name, or of too short a time")

var errWaits = errors.New("this node may not ask (cluster.egress: false), and no other member has a certificate yet")

// lockName is that of the lock for all that is done for the domain.
func (m *minder) lockName() string { return "mind_" + m.domain }

// giveBack gives the domain's lock back.
func (m *minder) giveBack(ctx context.Context) {
	if err := m.keeper.unlock(ctx, m.lockName()); err != nil {
		m.log.Debug("lock not given back: it ends by itself", "error", err)
	}
}

// needs reports whether the domain needs a certificate: it has none from this issuer, or a third
// of its time is left.
func (m *minder) needs(now time.Time) bool {
	cert := load(certmagic.StorageKeys.CertsSitePrefix(m.issuer.key(), m.domain), m.domain, m.shelf)
	return cert == nil || now.After(renewAt(cert))
}

// renewAt is when a certificate is to be renewed: a moment after certmagic finds so.
func renewAt(cert *tls.Certificate) time.Time {
	leaf := cert.Leaf
	return leaf.NotAfter.Add(time.Second - leaf.NotAfter.Sub(leaf.NotBefore)/3)
}

// pause is how long until the next look at the certificate in use.
func (m *minder) pause() time.Duration {
	cert := m.pairs.of(m.domain)
	if cert == nil {
		return firstLook
	}
	return min(lastLook, max(firstLook, cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)/60))
}

// order asks the authority, unless another member did meanwhile. Then the result is taken into
// use, or the failure is told to all members.
func (m *minder) order(ctx context.Context, last failure) {
	m.keeper.sync(ctx)
	if !m.needs(time.Now()) || m.lastFailure() != last {
		return
	}
	began := time.Now()
	m.log.Info("asking for a certificate", "domain", m.domain, "directory", m.issuer.settings.Directory)
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	m.ordering.Add(1)
	err := m.ask(ctx)
	m.ordering.Add(-1)
	m.rests = true
	if err == nil && m.needs(time.Now()) {
		err = errUseless
	}
	if err == nil {
		m.log.Info("certificate obtained", "domain", m.domain, "took_ms", wait.Milliseconds(time.Since(began)))
		m.install()
		m.own = failure{}
		m.tell(ctx, failure{})
		return
	}
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return // the node ends, or the settings have changed
	}
	next := failure{At: time.Now().UTC(), Count: min(max(last.Count, m.own.Count)+1, 100), Error: clip(err.Error())}
	m.own, m.ownAt = next, time.Now()
	m.log.Error("no certificate obtained", "domain", m.domain, "error", err, "next_try_ms", wait.Milliseconds(next.pause()))
	m.states.note(m.domain, err)
	m.tell(context.WithoutCancel(ctx), next)
}

// ask asks the authority for a certificate. What is on the shelf and cannot be used goes first.
func (m *minder) ask(ctx context.Context) error {
	folder := certmagic.StorageKeys.CertsSitePrefix(m.issuer.key(), m.domain)
	if load(folder, m.domain, m.shelf) != nil {
		return m.issuer.config.RenewCertSync(ctx, m.domain, false)
	}
	if err := (storage{m.keeper}).Delete(ctx, folder); err != nil {
		return err
	}
	return m.issuer.config.ObtainCertSync(ctx, m.domain)
}

// A failure is the last one of a domain, as it lies on the shelf for all members.
type failure struct {
	At    time.Time `json:"at"`
	Count int       `json:"count"` // in a row; 0: none
	Error string    `json:"error"`
}

// rest is how long nobody is to ask again.
func (f failure) rest(now time.Time) time.Duration {
	if f.Count < 1 || f.At.After(now.Add(lastRest)) { // of a clock that is wrong
		return 0
	}
	return f.pause() - now.Sub(f.At)
}

// pause is how long the failure keeps all from asking, 0 if it is none.
func (f failure) pause() time.Duration {
	if f.Count < 1 {
		return 0
	}
	return min(firstRest<<min(f.Count-1, 10), lastRest)
}

// failureKey is where the last failure of the domain lies.
func (m *minder) failureKey() string {
	return "failures/" + certmagic.StorageKeys.Safe(m.issuer.key()) + "/" + certmagic.StorageKeys.Safe(m.domain) + ".json"
}

// lastFailure is the last failure of the domain, at whichever member.
func (m *minder) lastFailure() (f failure) {
	text, ok := m.shelf.get(m.failureKey())
	if !ok || json.Unmarshal(text, &f) != nil {
		return failure{}
	}
	return f
}

// tell puts the failure, or that there is none, on the shelf.
func (m *minder) tell(ctx context.Context, f failure) {
	if f == m.lastFailure() {
		return
	}
	r := record{Key: m.failureKey(), Gone: f.Count == 0}
	var err error
	if !r.Gone {
		r.Value, err = json.Marshal(f)
	}
	if err == nil {
		err = m.keeper.write(ctx, r)
	}
	if err != nil {
		m.log.Warn("failure not told to the other members", "domain", m.domain, "error", err)
	}
}

// clip shortens what an authority said to what is kept and shown of it.
func clip(text string) string {
	const most = 1000
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "")
}
