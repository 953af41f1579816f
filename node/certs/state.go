package certs

import (
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"time"

	"oci-proxy/node/health"
)

// states are what came of minding each domain.
type states struct {
	mu     sync.Mutex // guards the field below
	errors map[string]error
}

// begin forgets all domains but these.
func (s *states) begin(domains []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := map[string]error{}
	for _, domain := range domains {
		kept[domain] = s.errors[domain]
	}
	s.errors = kept
}

// note notes why a domain's certificate could not be got or renewed; nil: all is well.
func (s *states) note(domain string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.errors[domain]; known {
		s.errors[domain] = err
	}
}

// of returns what was noted last.
func (s *states) of(domain string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.errors[domain]
}

// Health returns all that is wrong with the certificates, with codes.
func (c *Certs) Health(now time.Time) (wrong []error) {
	if err := c.shelf.failure(); err != nil {
		wrong = append(wrong, health.Because(health.CacheDir, fmt.Errorf("certificates are kept in memory only, and are lost with the last node: %s: %w", c.shelf.folder, err)))
	}
	for _, domain := range c.issuer.Load().settings.Domains {
		cert := c.pairs.of(domain)
		wrong = append(wrong, health.Because(health.ACME, lacking(domain, cert, c.states.of(domain))))
		if cert != nil {
			wrong = append(wrong, health.Because(health.CertificateExpiry, ending(domain, cert, now)))
		}
	}
	return slices.DeleteFunc(wrong, func(err error) bool { return err == nil })
}

// lacking returns why a domain has no certificate, or why that is not renewed.
func lacking(domain string, cert *tls.Certificate, err error) error {
	switch {
	case cert == nil && err == nil:
		return fmt.Errorf("no certificate for %s yet: it is being asked for", domain)
	case cert == nil:
		return fmt.Errorf("no certificate for %s yet: %w", domain, err)
	case err != nil:
		return fmt.Errorf("the certificate for %s, valid until %s, is not renewed: %w", domain, cert.Leaf.NotAfter.UTC().Format(time.RFC3339), err)
	}
	return nil
}

// ending returns what is wrong with the time for which a certificate is valid.
func ending(domain string, cert *tls.Certificate, now time.Time) error {
	leaf := cert.Leaf
	until := leaf.NotAfter.UTC().Format(time.RFC3339)
	switch left := leaf.NotAfter.Sub(now); {
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate for %s is not valid before %s: is the clock right?", domain, leaf.NotBefore.UTC().Format(time.RFC3339))
	case left <= 0:
		return fmt.Errorf("the certificate for %s has expired, at %s: clients refuse it", domain, until)
	case left < min(alarmTime, leaf.NotAfter.Sub(leaf.NotBefore)/6):
		return fmt.Errorf("the certificate for %s expires soon, at %s, and was not renewed", domain, until)
	}
	return nil
}
