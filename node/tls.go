package node

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"time"

	"oci-proxy/node/config"
)

// newCertificate reads the clients' port's certificate, nil for plain HTTP.
func newCertificate(cfg *config.Config, log *slog.Logger) (*watched[*tls.Certificate], error) {
	if !cfg.TLS.On() {
		return nil, nil
	}
	files := []string{cfg.TLS.CertFile, cfg.TLS.KeyFile}
	return newWatched("tls", files, func() (*tls.Certificate, error) { return config.ReadCertificate(cfg.TLS) }, log)
}

// serverTLS is how the clients' port speaks TLS: with the certificate of the
// moment, at each handshake.
func serverTLS(w *watched[*tls.Certificate]) *tls.Config {
	if w == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return w.get(), nil },
	}
}

const (
	// maxStreams bounds the requests on one HTTP/2 connection.
	maxStreams = 100
	// pingAfter is how long an HTTP/2 connection may be silent before it is asked
	// whether it lives; HTTP/1 has TCP's keep-alive and a deadline for each piece.
	pingAfter = 30 * time.Second
)

// overTLS sets up HTTP/2, which is spoken over TLS alone: in the clear it has
// had holes of its own, and no registry client speaks it there.
func overTLS(srv *http.Server) {
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(srv.TLSConfig != nil)
	srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, WriteByteTimeout: progress}
}
