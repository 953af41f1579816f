package certs

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// never is longer than any node runs. certmagic would look after certificates by itself, and
// ask the storage meanwhile with handshakes waiting; mind.go does it instead.
const never = 100 * 365 * 24 * time.Hour

// An issuer gets certificates by certmagic, as some settings say.
type issuer struct {
	settings Settings
	config   *certmagic.Config
	acme     *certmagic.ACMEIssuer
}

// silent is certmagic's log. It would have tokens in it, and messages with values. What matters of
// it comes as errors.
var silent = zap.NewNop()

// newCache is what certmagic keeps certificates in for handshakes. Nothing is in it: see never.
// Stop it.
func newCache() *certmagic.Cache {
	return certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return nil, errNoChallenge },
		RenewCheckInterval: never, OCSPCheckInterval: never, Logger: silent,
	})
}

// newIssuer returns an issuer of those settings.
func newIssuer(c *Certs, s Settings) (*issuer, error) {
	roots, err := authorities(s.CAFile)
	if err != nil {
		return nil, err
	}
	i := &issuer{settings: s}
	i.config = certmagic.New(c.cache, certmagic.Config{
		Storage: storage{c.keeper}, Logger: silent, DisableARI: true,
		DisableStorageCheck: true, // it would leave a record on every shelf each time
		OCSP:                certmagic.OCSPConfig{DisableStapling: true},
	})
	i.acme = certmagic.NewACMEIssuer(i.config, certmagic.ACMEIssuer{
		CA: s.Directory, Email: s.Email, Agreed: true, TrustedRoots: roots, HTTPProxy: c.proxy,
		DisableHTTPChallenge: true, CertObtainTimeout: pollTime, Logger: silent,
	})
	i.config.Issuers = []certmagic.Issuer{unasked{i.acme}}
	return i, nil
}

// listen tells certmagic where the challenge is answered, so that it opens no port of its own.
func (i *issuer) listen(at net.Addr) {
	host, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return // a port of TCP has both
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	i.acme.ListenHost = host
	i.acme.AltTLSALPNPort, _ = strconv.Atoi(port) // as above
}

// key is that of the authority on the shelf.
func (i *issuer) key() string { return i.acme.IssuerKey() }

// authorities are the system's and those in the file, nil for the system's alone.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls.acme.ca_file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine may have none
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls.acme.ca_file: %q holds no PEM certificate", file)
	}
	return pool, nil
}

// unasked is an ACME issuer that never asks a person who sits at the terminal.
type unasked struct{ *certmagic.ACMEIssuer }

// PreCheck implements certmagic.PreChecker.
func (u unasked) PreCheck(ctx context.Context, names []string, _ bool) error {
	return u.ACMEIssuer.PreCheck(ctx, names, false)
}
