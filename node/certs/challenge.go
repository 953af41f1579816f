package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"sync"
	"time"

	"oci-proxy/transfer/wait"
)

// acmeProtocol is how a client asks for the certificate of the challenge (RFC 8737 section 6.2).
const acmeProtocol = "acme-tls/1"

// challenges bound what handshakes of the challenge cost, which anybody can begin: for each
// domain there is one question to the shelf at a time, whose answer holds for a moment.
type challenges struct {
	calls *wait.Calls[string, *tls.Certificate]

	mu   sync.Mutex // guards the field below
	last map[string]challenge
}

// A challenge is the certificate that answers one, nil if there is none now.
type challenge struct {
	cert  *tls.Certificate
	asked time.Time
}

func newChallenges(life *wait.Life) *challenges {
	return &challenges{calls: wait.NewCalls[string, *tls.Certificate](life, challengeTime), last: map[string]challenge{}}
}

var errNoChallenge = errors.New("no certificate authority has been asked for that name")

// challenged is the config of a handshake that belongs to the challenge, nil for all others.
// There is no HTTP after such a handshake.
func (c *Certs) challenged(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != acmeProtocol {
		return nil, nil
	}
	i := c.issuer.Load()
	if !slices.Contains(i.settings.Domains, hello.ServerName) {
		return nil, errNoChallenge
	}
	cert, err := c.challenges.of(hello.Context(), hello.ServerName, func(ctx context.Context) (*tls.Certificate, error) {
		return i.config.GetCertificateWithContext(ctx, hello)
	})
	if err != nil {
		return nil, errNoChallenge
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{acmeProtocol}, Certificates: []tls.Certificate{*cert}}, nil
}

// seen is the last answer about a domain.
func (c *challenges) seen(domain string) challenge {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last[domain]
}

// of returns what answers the challenge for a domain. ask asks the shelf.
func (c *challenges) of(ctx context.Context, domain string, ask func(context.Context) (*tls.Certificate, error)) (*tls.Certificate, error) {
	for {
		last := c.seen(domain)
		left := challengeRest - time.Since(last.asked)
		if left > 0 && last.cert != nil {
			return last.cert, nil
		}
		// Strangers can ask for what is not there. That must not refuse the authority, which
		// asks just after it was put there.
		if left > 0 {
			if err := wait.For(ctx, left); err != nil {
				return nil, err
			}
			continue
		}
		cert, _, err := c.calls.Do(ctx, domain, func(ctx context.Context) (*tls.Certificate, error) {
			if last := c.seen(domain); time.Since(last.asked) < challengeRest { // it was asked since the caller looked
				return last.cert, nil
			}
			cert, err := ask(ctx)
			if err != nil {
				cert = nil
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.last[domain] = challenge{cert, time.Now()}
			return cert, err
		})
		if cert != nil || err != nil {
			return cert, err
		}
	}
}
