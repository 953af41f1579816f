package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
)

// pairs are the certificates in use. Who reads them waits for nobody.
type pairs struct {
	now atomic.Pointer[pairing]
	own *tls.Certificate // which nobody trusts, while there is no other
}

// A pairing is what is in use at a moment. It does not change.
type pairing struct {
	domains []string
	byName  map[string]*tls.Certificate
}

// newPairs makes a certificate of this node's own, and puts it in the folder for commands on this
// machine.
func newPairs(folder string) (*pairs, error) {
	own, err := selfSigned()
	if err != nil {
		return nil, fmt.Errorf("making a certificate for the time before the first: %w", err)
	}
	_ = replace(folder, ownFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]})) // the shelf says what is wrong with the folder
	p := &pairs{own: own}
	p.now.Store(&pairing{})
	return p, nil
}

// ownFile has the certificate, without its key, that is shown while there is no other.
const ownFile = "own.crt"

// show returns the certificate for a name: its own, or that of the first name that has one.
func (p *pairs) show(name string) *tls.Certificate {
	now := p.now.Load()
	if cert := now.byName[strings.ToLower(strings.TrimSuffix(name, "."))]; cert != nil {
		return cert
	}
	for _, domain := range now.domains {
		if cert := now.byName[domain]; cert != nil {
			return cert
		}
	}
	return p.own
}

// of returns the certificate of a domain, nil if there is none.
func (p *pairs) of(domain string) *tls.Certificate { return p.now.Load().byName[domain] }

// install takes the certificates of the domains from the shelf, as it is now, and returns the
// names of those that are new. One that cannot be used leaves the one before in use. Two calls at
// once may let an older one stay until the next.
func (p *pairs) install(domains []string, issuerKey string, s *shelf) (fresh []string) {
	old, now := p.now.Load(), time.Now()
	next := &pairing{domains, map[string]*tls.Certificate{}}
	for _, domain := range domains {
		before := old.byName[domain]
		found := stored(domain, issuerKey, s)
		switch {
		case found == nil && before == nil:
		case found == nil, before != nil && before.Leaf.Equal(found.Leaf):
			next.byName[domain] = before
		case before != nil && now.After(found.Leaf.NotAfter) && now.Before(before.Leaf.NotAfter):
			next.byName[domain] = before // what a member got long ago comes late
		default:
			next.byName[domain] = found
			fresh = append(fresh, domain)
		}
	}
	p.now.Store(next)
	return fresh
}

// stored returns the certificate of a domain that lies on the shelf: from that issuer, or if that has
// expired or is not there, the one from whichever issuer that is valid for longest. It is nil if there is
// none, or if its key is of another, as it is for a moment while both are replaced.
func stored(domain, issuerKey string, s *shelf) *tls.Certificate {
	best := load(certmagic.StorageKeys.CertsSitePrefix(issuerKey, domain), domain, s)
	if best != nil && time.Now().Before(best.Leaf.NotAfter) {
		return best
	}
	for _, one := range s.under("certificates") {
		folder, ok := strings.CutSuffix(one.Key, "/"+certmagic.StorageKeys.Safe(domain)+".crt")
		if !ok {
			continue
		}
		if cert := load(folder, domain, s); cert != nil && (best == nil || cert.Leaf.NotAfter.After(best.Leaf.NotAfter)) {
			best = cert
		}
	}
	return best
}

// load reads a certificate and its key from a folder of the shelf.
func load(folder, domain string, s *shelf) *tls.Certificate {
	name := folder + "/" + certmagic.StorageKeys.Safe(domain)
	chain, ok := s.get(name + ".crt")
	key, has := s.get(name + ".key")
	if !ok || !has {
		return nil
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil || cert.Leaf.VerifyHostname(domain) != nil {
		return nil
	}
	return &cert
}

// selfSigned makes a certificate that is valid for ten years and trusted by nobody.
func selfSigned() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	name := pkix.Name{CommonName: "oci-proxy: no certificate yet"}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// On returns the certificates, without keys, of a node on this machine whose shelf is in that
// folder, so that a command knows the node by them. Without the right to read there are none.
func On(folder string) (all []*x509.Certificate) {
	add := func(text []byte) {
		if block, _ := pem.Decode(text); block != nil {
			if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
				all = append(all, cert)
			}
		}
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	for _, f := range files {
		file := filepath.Join(folder, f.Name())
		if f.Name() == ownFile {
			text, _ := os.ReadFile(file)
			add(text)
		} else if r, err := readRecord(file); err == nil && strings.HasSuffix(r.Key, ".crt") {
			add(r.Value)
		}
	}
	return all
}
