package upstreamtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A listener is a server that can be stopped and started again on its port.
type listener struct {
	addr    string
	handler http.Handler
	ln      net.Listener // nil while down
	server  *http.Server
	done    chan struct{} // closed when the server's accept loop has ended
}

// bind takes a port for l and serves nothing yet. A port that was ours may for
// a moment be another's outgoing one, so it is tried for some seconds.
func (r *Registry) bind(l *listener) {
	r.t.Helper()
	ln, err := net.Listen("tcp", l.addr)
	for range 100 {
		if err == nil {
			break
		}
		<-time.After(50 * time.Millisecond)
		ln, err = net.Listen("tcp", l.addr)
	}
	if err != nil {
		r.t.Fatalf("upstreamtest: listening: %v", err)
	}
	l.addr, l.ln = ln.Addr().String(), ln
}

// serve begins to answer at l, which is bound.
func (r *Registry) serve(l *listener) {
	done, ln := make(chan struct{}), l.ln
	server := &http.Server{Handler: l.handler, ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(r.opts.http2)
	l.server, l.done = server, done
	go func() {
		defer close(done)
		if r.tlsConfig == nil {
			_ = server.Serve(ln)
			return
		}
		server.TLSConfig = r.tlsConfig.Clone()
		_ = server.ServeTLS(ln, "", "")
	}()
}

func (l *listener) down() {
	if l == nil || l.ln == nil {
		return
	}
	_ = l.ln.Close() // the server does not know it yet if it has only just been started
	if l.server != nil {
		_ = l.server.Close()
		<-l.done
	}
	l.server, l.ln = nil, nil
}

// Down closes the listeners of all servers and cuts their connections: new
// ones are refused. Not to be called at once with Up or Down.
func (r *Registry) Down() {
	for _, l := range []*listener{r.main, r.token, r.cdn} {
		l.down()
	}
}

// Up ends what Down began, on the same ports.
func (r *Registry) Up() {
	r.t.Helper()
	var bound []*listener
	for _, l := range []*listener{r.main, r.token, r.cdn} {
		if l != nil && l.ln == nil {
			r.bind(l)
			bound = append(bound, l)
		}
	}
	for _, l := range bound { // only now, since each server tells the others' addresses
		r.serve(l)
	}
}

func (r *Registry) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	close(r.closing)
	r.Down()
	r.active.Wait()
}

// makeCertificate makes a CA and, from it, one certificate for all servers.
func (r *Registry) makeCertificate() {
	r.t.Helper()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "upstreamtest CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "upstreamtest"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caKey, caDER := r.sign(ca, ca, nil)
	leafKey, leafDER := r.sign(leaf, ca, caKey)
	r.tlsConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}}}
	r.caFile = filepath.Join(r.t.TempDir(), "ca.pem")
	if err := os.WriteFile(r.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o600); err != nil {
		r.t.Fatalf("upstreamtest: writing the CA: %v", err)
	}
}

// sign makes a key and a certificate for it; it signs itself where there is no parentKey.
func (r *Registry) sign(cert, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatalf("upstreamtest: making a key: %v", err)
	}
	if parentKey == nil {
		parentKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		r.t.Fatalf("upstreamtest: signing a certificate: %v", err)
	}
	return key, der
}

// Tunnel copies between conn and the server at addr until either ends, as a
// proxy does for CONNECT.
func Tunnel(conn net.Conn, addr string) {
	defer func() { _ = conn.Close() }()
	to, err := new(net.Dialer).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(to, conn)
		_ = to.Close()
	})
	_, _ = io.Copy(conn, to)
	_ = conn.Close()
	_ = to.Close()
	wg.Wait()
}
