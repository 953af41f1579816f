package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"oci-proxy/node/health"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/wait"
)

// open opens certificates of these domains, from a server that is not there.
func open(t *testing.T, log *slog.Logger, domains ...string) *Certs {
	t.Helper()
	c, err := Open(Config{
		Dir: filepath.Join(t.TempDir(), "acme"), Log: log, Proxy: http.ProxyFromEnvironment,
		Settings: Settings{Domains: domains, Directory: "https://127.0.0.1:1/dir", Asks: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		c.Close(now)
	})
	return c
}

// issue puts a certificate on the shelf, as certmagic does.
func issue(t *testing.T, c *Certs, domain string, since, until time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(until.Unix()), DNSNames: []string{domain}, NotBefore: since, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	i := c.issuer.Load().key()
	keep(t, c, certmagic.StorageKeys.SitePrivateKey(i, domain), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	c.install() // in between
	keep(t, c, certmagic.StorageKeys.SiteCert(i, domain), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keep(t, c, certmagic.StorageKeys.SiteMeta(i, domain), []byte("{}"))
	c.install()
}

func keep(t *testing.T, c *Certs, key string, value []byte) {
	t.Helper()
	if err := (storage{c.keeper}).Store(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

// shown returns the certificate that a client gets who asks for a name.
func shown(t *testing.T, c *Certs, name string) *x509.Certificate {
	t.Helper()
	cert, err := c.Server().GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf
}

// Each name has its certificate; others, and none, have the first that there is. While a
// certificate and its key are replaced the one before stays.
func TestWhichCertificateIsShown(t *testing.T) {
	t.Parallel()
	c := open(t, slog.New(slog.DiscardHandler), "one.example.com", "two.example.com")
	if leaf := shown(t, c, "one.example.com"); !strings.Contains(leaf.Subject.CommonName, "no certificate yet") {
		t.Errorf("before the first one it shows %v", leaf.Subject)
	}
	now := time.Now()
	issue(t, c, "two.example.com", now, now.Add(time.Hour))
	if leaf := shown(t, c, "one.example.com"); leaf.DNSNames[0] != "two.example.com" {
		t.Errorf("it shows %v though there is another", leaf.DNSNames)
	}
	issue(t, c, "one.example.com", now, now.Add(time.Hour))
	for asked, want := range map[string]string{"": "one.example.com", "stranger.example.com": "one.example.com", "one.example.com": "one.example.com", "TWO.example.com": "two.example.com", "127.0.0.1": "one.example.com"} {
		if leaf := shown(t, c, asked); leaf.DNSNames[0] != want {
			t.Errorf("for %q it shows %v", asked, leaf.DNSNames)
		}
	}
	issue(t, c, "one.example.com", now, now.Add(2*time.Hour)) // looks on between key and certificate
	if leaf := shown(t, c, ""); leaf.NotAfter.Before(now.Add(time.Hour + time.Minute)) {
		t.Error("the new certificate is not in use")
	}
	if got := On(c.shelf.folder); len(got) != 3 || !slices.ContainsFunc(got, shown(t, c, "").Equal) {
		t.Errorf("a command on this machine finds %d certificates", len(got))
	}
}

// Only names of the config are answered for the challenge, and nobody is asked for a certificate
// by a handshake.
func TestChallengeIsForKnownNames(t *testing.T) {
	t.Parallel()
	c := open(t, slog.New(slog.DiscardHandler), "one.example.com")
	hello := func(name string, protocols ...string) (*tls.Config, error) {
		return c.challenged(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: protocols})
	}
	if cfg, err := hello("one.example.com", "h2", "http/1.1"); cfg != nil || err != nil {
		t.Errorf("a client's handshake: %v, %v", cfg, err)
	}
	if cfg, err := hello("one.example.com", "h2", acmeProtocol); cfg != nil || err != nil {
		t.Errorf("a handshake of both kinds: %v, %v", cfg, err)
	}
	if _, err := hello("stranger.example.com", acmeProtocol); !errors.Is(err, errNoChallenge) {
		t.Errorf("a name that is not listed: %v", err)
	}
}

// However many handshakes there are, each name makes one question to the shelf in a moment. Who
// came before the answer was there waits for it: strangers cannot have the authority refused.
func TestChallengeIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		life := wait.NewLife()
		c := newChallenges(life)
		var asked atomic.Int64
		var there atomic.Pointer[tls.Certificate]
		ask := func(context.Context) (*tls.Certificate, error) {
			asked.Add(1)
			if cert := there.Load(); cert != nil {
				return cert, nil
			}
			return nil, errNoChallenge
		}
		_, _ = c.of(t.Context(), "one.example.com", ask) // a stranger, before
		var found atomic.Int64
		for range 100 {
			go func() {
				if cert, err := c.of(t.Context(), "one.example.com", ask); err == nil && cert == there.Load() {
					found.Add(1)
				}
			}()
		}
		synctest.Wait()
		there.Store(&tls.Certificate{})
		<-time.After(2 * challengeRest)
		if found.Load() != 100 || asked.Load() > 3 {
			t.Errorf("%d of 100 handshakes got the answer by %d questions", found.Load(), asked.Load())
		}
		life.Close(t.Context())
	})
}

// A failure that cannot be told to others rests all the same, and so does one that a clock which
// is wrong takes for old.
func TestOwnFailuresRest(t *testing.T) {
	t.Parallel()
	now := time.Now()
	m := &minder{rests: true, began: now, own: failure{At: now, Count: 3, Error: "refused"}, ownAt: now}
	for name, last := range map[string]failure{"none": {}, "long ago": {At: now.Add(-48 * time.Hour), Count: 2}, "in the future": {At: now.Add(48 * time.Hour), Count: 2}} {
		if left, why := m.rest(last, now); left < 3*firstRest || why != "refused" {
			t.Errorf("%s: it rests for %v, because of %q", name, left, why)
		}
	}
	after := &minder{began: now}
	if left, _ := after.rest(failure{At: now.Add(-time.Second), Count: 5}, now); left > 0 {
		t.Errorf("after a reload it rests for %v", left)
	}
	if left, _ := after.rest(failure{At: now.Add(time.Second), Count: 1}, now.Add(2*time.Second)); left <= 0 {
		t.Error("what another member has tried since the reload does not count")
	}
}

// A certificate that has expired does not take the place of one that is valid.
func TestExpiredStaysOut(t *testing.T) {
	t.Parallel()
	c := open(t, slog.New(slog.DiscardHandler), "one.example.com")
	now := time.Now()
	issue(t, c, "one.example.com", now.Add(-time.Hour), now.Add(time.Hour))
	issue(t, c, "one.example.com", now.Add(-2*time.Hour), now.Add(-time.Minute))
	if leaf := shown(t, c, "one.example.com"); leaf.NotAfter.Before(now) {
		t.Error("the expired one is in use")
	}
}

// After a restart with the directory of before, what that gave long ago does not take the place of what another
// gave since and is valid.
func TestExpiredOfThisServerStaysOut(t *testing.T) {
	t.Parallel()
	c := open(t, slog.New(slog.DiscardHandler), "one.example.com")
	now := time.Now()
	issue(t, c, "one.example.com", now.Add(-time.Hour), now.Add(time.Hour))
	i := c.issuer.Load().key()
	for _, key := range []func(string, string) string{certmagic.StorageKeys.SitePrivateKey, certmagic.StorageKeys.SiteCert} {
		value, _ := c.shelf.get(key(i, "one.example.com"))
		keep(t, c, key("another", "one.example.com"), value)
	}
	issue(t, c, "one.example.com", now.Add(-2*time.Hour), now.Add(-time.Minute))
	c.pairs.now.Store(&pairing{}) // as at a start
	if c.install(); shown(t, c, "one.example.com").NotAfter.Before(now) {
		t.Error("the expired one is in use")
	}
}

// A server that does not answer is told in the log and by health, the failure rests for all
// members, and a reload tries at once.
func TestFailureIsToldAndRests(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	log := &testkit.Log{}
	c := open(t, slog.New(slog.NewTextHandler(log, nil)), "one.example.com")
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		c.Run(ctx, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})
	}()
	defer func() { cancel(); <-ran }()
	log.Await(t, "no certificate obtained", 1)
	testkit.Await(t, "health says it", func() bool {
		wrong := c.Health(time.Now())
		return len(wrong) == 1 && health.CodeOf(wrong[0]) == health.ACME && strings.Contains(wrong[0].Error(), "connection refused")
	})
	m := &minder{Certs: c, issuer: c.issuer.Load(), domain: "one.example.com", rests: true}
	testkit.Await(t, "the failure is kept for all", func() bool { return m.lastFailure().Count == 1 })
	if left := m.look(ctx); left < time.Second || log.Count("no certificate obtained") != 1 {
		t.Errorf("it rests for %v", left)
	}
	again, err := c.Prepare(c.issuer.Load().settings)
	if err != nil {
		t.Fatal(err)
	}
	again()
	log.Await(t, "no certificate obtained", 2)
}

// Health tells of a certificate that ends, and of one that is missing.
func TestHealth(t *testing.T) {
	t.Parallel()
	c := open(t, slog.New(slog.DiscardHandler), "one.example.com")
	now := time.Now()
	c.states.begin([]string{"one.example.com"})
	says := func(at time.Time, want ...string) {
		t.Helper()
		wrong := c.Health(at)
		if len(wrong) != len(want) {
			t.Fatalf("it says %v, not %v", wrong, want)
		}
		for i := range wrong {
			if !strings.HasPrefix(health.Text(wrong[i]), want[i]) {
				t.Errorf("it says %q, not %q", health.Text(wrong[i]), want[i])
			}
		}
	}
	says(now, "acme: no certificate for one.example.com yet: it is being asked for")
	issue(t, c, "one.example.com", now.Add(-time.Minute), now.Add(90*24*time.Hour))
	says(now)
	says(now.Add(84*24*time.Hour), "certificate_expiry: the certificate for one.example.com expires soon, at ")
	says(now.Add(91*24*time.Hour), "certificate_expiry: the certificate for one.example.com has expired, at ")
	says(now.Add(-time.Hour), "certificate_expiry: the certificate for one.example.com is not valid before ")
	c.states.note("one.example.com", errors.New("the authority says no"))
	says(now, "acme: the certificate for one.example.com, valid until ")
}

// Failures rest longer each time, as long as the authority allows, and never for ever.
func TestFailuresRest(t *testing.T) {
	t.Parallel()
	now := time.Now()
	last := time.Duration(0)
	for n := 1; n < 200; n++ {
		rest := failure{At: now, Count: n}.rest(now)
		if rest < last || rest < firstRest || rest > lastRest {
			t.Errorf("after %d failures it rests for %v", n, rest)
		}
		last = rest
	}
	for name, f := range map[string]failure{"none": {}, "of a clock that is wrong": {At: now.Add(48 * time.Hour), Count: 3}, "long ago": {At: now.Add(-2 * time.Hour), Count: 9}} {
		if rest := f.rest(now); rest > 0 {
			t.Errorf("%s: it rests for %v", name, rest)
		}
	}
}

// A certificate is renewed when a third of its time is left, just after certmagic finds so.
func TestRenewalIsDue(t *testing.T) {
	t.Parallel()
	for _, lasts := range []time.Duration{time.Minute, 6 * 24 * time.Hour, 90 * 24 * time.Hour} {
		since := time.Unix(1e9, 0)
		cert := &tls.Certificate{Leaf: &x509.Certificate{NotBefore: since, NotAfter: since.Add(lasts)}}
		if at := renewAt(cert).Sub(since); at < lasts*2/3+time.Second || at > lasts*2/3+2*time.Second {
			t.Errorf("of %v it is renewed after %v", lasts, at)
		}
	}
}

func TestTimesAreInOrder(t *testing.T) {
	t.Parallel()
	for _, order := range [][]time.Duration{
		{stepTime, renewTime, leaseTime, patience, orderTime},
		{2 * renewTime, leaseTime},
		{askTime, challengeTime, leaseTime},
		{askTime, syncEvery},
		{pollTime, orderTime},
		{challengeRest, challengeTime},
		{firstLook, lastLook, alarmTime},
		{firstRest, lastRest},
	} {
		if !slices.IsSorted(order) {
			t.Errorf("%v are not in order", order)
		}
	}
}
