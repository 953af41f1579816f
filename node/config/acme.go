package config

import (
	"errors"
	"net/mail"
	"net/url"
	"slices"
	"strings"
)

// LetsEncrypt is the directory of Let's Encrypt, whose certificates all clients trust.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// maxDomains bounds the names that a node gets certificates for: each is a certificate of its
// own, and authorities limit how many there may be in a week.
const maxDomains = 50

// An ACME says for which names certificates are got, and from which ACME server (RFC 8555).
type ACME struct {
	Domains   []string // names in the DNS, lower case; none: no certificates are got
	Email     string   // where the authority writes to, "" for nowhere
	Directory string   // URL of the server's directory
	CAFile    string   // PEM file of authorities to trust beside the system's when the server is asked, "" for none
}

// On reports whether certificates are got.
func (a ACME) On() bool { return len(a.Domains) > 0 }

var (
	domainKind    = kind[string]{"domain", false, parseDomain, nil}
	emailKind     = kind[string]{"email", false, parseEmail, nil}
	directoryKind = kind[string]{"URL", false, parseDirectory, nil}
)

// parseDomain parses a name that an authority can prove: one in the DNS, and no wildcard,
// which takes a challenge in the DNS.
func parseDomain(s string) (string, error) {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	switch {
	case strings.Contains(s, "*"):
		return "", errors.New("is a wildcard; list each name, since only a challenge in the DNS gets wildcards, which this does not do")
	case validIP(strings.Trim(s, "[]")):
		return "", errors.New("is an IP address; use a name in the DNS")
	case strings.ContainsAny(s, ":/"):
		return "", errors.New("is not a domain; write the name alone, without a scheme, port or path")
	case !validName(s) || !strings.Contains(s, ".") || strings.Contains(s, "_"):
		return "", errors.New("is not a domain; use a full name such as registry.example.com (names beyond ASCII as xn--…)")
	}
	return s, nil
}

// parseEmail parses an address alone, without a name.
func parseEmail(s string) (string, error) {
	a, err := mail.ParseAddress(s)
	if s != "" && (err != nil || a.Address != s || len(s) > 254) {
		return "", errors.New("is not an email address; use for example ops@example.com")
	}
	return s, nil
}

// parseDirectory parses the URL of an ACME server's directory. RFC 8555 section 6.1 wants https.
func parseDirectory(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "https" || !validAuthority(u) || u.Fragment != "" || len(s) > 200:
		return "", errors.New("is not the https:// URL of an ACME server's directory; use for example " + LetsEncrypt)
	case u.User != nil:
		return "", errors.New("has a login; an ACME server takes none")
	}
	return s, nil
}

// An acmeChecker applies the rules of tls.acme: certificates come from one place, and their keys
// travel safely.
type acmeChecker struct {
	*report
	config *Config
}

// check applies them.
func (k *acmeChecker) check(t *TLS) {
	const domains, mails, directory, authorities = "tls.acme.domains", "tls.acme.email", "tls.acme.directory", "tls.acme.ca_file"
	if !t.ACME.On() {
		t.ACME.Domains = nil // an empty list is none
		for _, path := range []string{mails, directory, authorities} {
			if k.isSet(path) && !k.failed(domains) && (t.ACME.Email+t.ACME.CAFile != "" || t.ACME.Directory != LetsEncrypt) {
				k.problem(k.at(path), path, "is set, but tls.acme has no domains; set tls.acme.domains to the names that clients use for this proxy")
				return
			}
		}
		return
	}
	if t.CertFile != "" || t.KeyFile != "" {
		k.problem(k.at("tls.cert_file", "tls.key_file"), "tls.cert_file", "is set as well as tls.acme; keep one of them")
	}
	if len(t.ACME.Domains) > maxDomains {
		k.problem(k.at(domains), domains, "has %d names; the limit is %d", len(t.ACME.Domains), maxDomains)
	}
	for i, name := range t.ACME.Domains {
		if slices.Index(t.ACME.Domains, name) < i {
			k.problem(k.at(index(domains, i), domains), index(domains, i), "%q is listed twice", name)
		}
	}
	k.checkWay()
}

// checkWay makes sure that nobody reads the keys on their way between nodes.
func (k *acmeChecker) checkWay() {
	if c := k.config.Cluster; c != nil && !c.PeerTLS && (!loopback(c.BindAddr) || !loopback(c.PeerAddr) || c.Advertise != "" && !loopback(c.Advertise)) {
		k.problem(k.at("cluster.peer_tls"), "cluster.peer_tls", "is false, and tls.acme is set: the certificates' private keys would travel between nodes in the clear; set it to true, or use tls.cert_file")
	}
}

// acme warns of names that an authority cannot reach this node by.
func (d *doubter) acme() {
	const path = "tls.acme.domains"
	c := d.config
	if !c.TLS.ACME.On() {
		return
	}
	if c.Port != 443 {
		d.warn(d.at(path), path, "the certificate authority connects to port 443 of each name, and this node listens on %d; set port: 443, or let port 443 of these names lead here, as TCP that nothing decrypts on the way", c.Port)
	}
	if u, err := url.Parse(c.BaseURL); err == nil && c.BaseURL != "" && !slices.Contains(c.TLS.ACME.Domains, strings.ToLower(u.Hostname())) {
		d.warn(d.at("base_url"), "base_url", "%q is not among tls.acme.domains, so clients would find no certificate for it; add it there", u.Hostname())
	}
	if c.TLS.ACME.Directory == LetsEncrypt {
		for i, name := range c.TLS.ACME.Domains {
			if near(name) || strings.HasSuffix(name, ".test") || strings.HasSuffix(name, ".example") || strings.HasSuffix(name, ".invalid") {
				d.warn(d.at(index(path, i), path), index(path, i), "%q is a name of your own network, for which Let's Encrypt gives no certificate; set tls.acme.directory to an ACME server of your own", name)
			}
		}
	}
	if k := c.Cluster; k != nil && !k.Egress {
		d.warn(d.at("cluster.egress"), "cluster.egress", "is false, so this node asks for no certificate itself and waits until another member with tls.acme has one")
	}
}
