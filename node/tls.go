package node

import (
	"crypto/tls"
	"log/slog"
	"net/http"

	"oci-proxy/node/config"
	"oci-proxy/node/reload"
)

// A certificate is that of the clients' port, read again when its files change.
// nil stands for plain HTTP.
type certificate struct {
	files *reload.Files[*tls.Certificate]
}

// openCertificate reads the certificate that the config names, nil for none.
func openCertificate(cfg *config.Config, log *slog.Logger) (*certificate, error) {
	if !cfg.TLS.On() {
		return nil, nil
	}
	paths := []string{cfg.TLS.CertFile, cfg.TLS.KeyFile}
	files, err := reload.Open("tls", paths, func() (*tls.Certificate, error) { return config.ReadCertificate(cfg.TLS) }, log)
	if err != nil {
		return nil, err
	}
	return &certificate{files}, nil
}

// server is how the clients' port speaks TLS, nil for plain HTTP. Each handshake
// shows the certificate of the moment.
func (c *certificate) server() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.files.Get(), nil },
	}
}

// health returns what is wrong with the files, nil if nothing is.
func (c *certificate) health() error {
	if c == nil {
		return nil
	}
	return c.files.Health()
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
