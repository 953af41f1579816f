package node

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/node/health"
	"oci-proxy/node/reload"
)

// A certificate is that of the clients' port, read again when its files change.
// nil stands for plain HTTP, or for certificates that node/certs gets.
type certificate struct {
	paths config.TLS // only whoever reloads looks at them
	files atomic.Pointer[reload.Files[*tls.Certificate]]
}

// openCertificate reads the certificate that the config names, nil for none.
func openCertificate(cfg *config.Config, log *slog.Logger) (*certificate, error) {
	if !cfg.TLS.Files() {
		return nil, nil
	}
	files, err := openPair(cfg.TLS, log)
	if err != nil {
		return nil, err
	}
	c := &certificate{paths: cfg.TLS}
	c.files.Store(files)
	return c, nil
}

// openPair reads the certificate and its key.
func openPair(paths config.TLS, log *slog.Logger) (*reload.Files[*tls.Certificate], error) {
	return reload.Open("tls", []string{paths.CertFile, paths.KeyFile}, func() (*tls.Certificate, error) { return config.ReadCertificate(paths) }, log)
}

// prepare makes the certificate in other files ready. Until commit is called nothing has
// changed. TLS is not turned on or off.
func (c *certificate) prepare(paths config.TLS, log *slog.Logger) (commit func(), err error) {
	if c == nil || !paths.Files() {
		return func() {}, nil
	}
	if paths.CertFile == c.paths.CertFile && paths.KeyFile == c.paths.KeyFile {
		return func() { c.files.Load().Expire() }, nil
	}
	files, err := openPair(paths, log)
	if err != nil {
		return nil, err
	}
	return func() {
		c.paths = paths
		c.files.Store(files)
	}, nil
}

// server is how the clients' port speaks TLS, nil for plain HTTP. Each handshake
// shows the certificate of the moment.
func (c *certificate) server() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.files.Load().Get(), nil },
	}
}

// authority returns the certificate of the authority that signed this one, in PEM, if the
// file has it. That is so only for private authorities: clients know the public ones. It is nil too
// if the certificate is not for that name, but somebody else's, such as a load balancer's, is.
func (c *certificate) authority(name string) []byte {
	if c == nil {
		return nil
	}
	pair := c.files.Load().Get()
	root, err := x509.ParseCertificate(pair.Certificate[len(pair.Certificate)-1])
	if err != nil || !bytes.Equal(root.RawIssuer, root.RawSubject) || pair.Leaf.VerifyHostname(name) != nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})
}

// health lists what is wrong with the files, and with the certificate that is in use.
func (c *certificate) health(now time.Time) []error {
	if c == nil {
		return nil
	}
	bad := health.Because(health.TLS, c.files.Load().Health())
	return []error{bad, health.Because(health.CertificateExpiry, expiry(c.files.Load().Get(), now))}
}

// soon is how long before its end a certificate is told of. It is long enough for a person to
// act, and short enough for those who renew their certificates by themselves: they do it when
// a third of the time is left.
const soon = 7 * 24 * time.Hour

// expiry returns what is wrong with the time for which a certificate is valid.
func expiry(cert *tls.Certificate, now time.Time) error {
	leaf := cert.Leaf
	left := leaf.NotAfter.Sub(now)
	switch until := leaf.NotAfter.UTC().Format(time.RFC3339); {
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s: is the clock right?", leaf.NotBefore.UTC().Format(time.RFC3339))
	case left <= 0:
		return fmt.Errorf("the certificate has expired, at %s: clients refuse it", until)
	case left < min(soon, leaf.NotAfter.Sub(leaf.NotBefore)/3):
		return fmt.Errorf("the certificate expires soon, at %s: renew it", until)
	}
	return nil
}

// maxStreams bounds the requests on one HTTP/2 connection.
const maxStreams = 100

// setProtocols allows HTTP/2 over TLS only: in the clear it has had security holes
// of its own, and no registry client speaks it there.
func setProtocols(srv *http.Server) {
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(srv.TLSConfig != nil)
	srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, WriteByteTimeout: pieceTime}
}
