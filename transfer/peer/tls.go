package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// NewCertificate makes a self-signed certificate and returns it with its
// fingerprint, which gossip tells the other members. The key is kept in memory
// only. Nobody looks at the names or the dates in the certificate.
func NewCertificate() (tls.Certificate, [32]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, [32]byte{}, fmt.Errorf("making the peers' key: %w", err)
	}
	// The dates are the same everywhere, so that no clock matters.
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, [32]byte{}, fmt.Errorf("making the peers' certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, sha256.Sum256(der), nil
}

// ServerTLS is the TLS config of a peers' listener with that certificate.
func ServerTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{
		Certificates:           []tls.Certificate{cert},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true, // no client would use them
		// The first bytes of a blob come in one record: a reader passes on at once what comes at once.
		DynamicRecordSizingDisabled: true,
	}
}

var errPin = errors.New("its certificate is not the one that gossip told: another node has its address, or it has just restarted")

// pinned is the TLS config of a client that accepts one certificate only. Every
// connection is checked, also one that resumes another.
func pinned(fingerprint [32]byte) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, // the pin takes the place of names and authorities
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{"http/1.1"},
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || sha256.Sum256(s.PeerCertificates[0].Raw) != fingerprint {
				return errPin
			}
			return nil
		},
	}
}
