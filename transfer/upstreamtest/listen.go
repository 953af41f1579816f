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
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// servers are those of a registry. Each has a port of its own.
type servers struct {
	t     testing.TB
	http2 bool

	main, token, cdn *listener   // token and cdn are nil if main serves in their place or none is wanted
	tlsConfig        *tls.Config // nil: plain HTTP
	caFile           string
}

// anyPort is where listeners begin. They stay on the port that they get.
const anyPort = "127.0.0.1:0"

// Host returns the registry's "127.0.0.1:port".
func (s *servers) Host() string { return s.main.addr }

// URL returns the registry's address with its scheme and without a path.
func (s *servers) URL() string { return s.scheme() + "://" + s.main.addr }

// TokenHost returns the token server's host:port. It is Host unless SeparateHost was
// asked for.
func (s *servers) TokenHost() string {
	if s.token != nil {
		return s.token.addr
	}
	return s.main.addr
}

// CDNHost returns the CDN's host:port, "" without Redirect or RedirectManifests.
func (s *servers) CDNHost() string {
	if s.cdn == nil {
		return ""
	}
	return s.cdn.addr
}

// CAFile returns the path of the PEM file with the CA's certificate, "" without TLS.
func (s *servers) CAFile() string { return s.caFile }

// scheme returns what all servers speak.
func (s *servers) scheme() string {
	if s.tlsConfig != nil {
		return "https"
	}
	return "http"
}

// A listener is a server that can be stopped and started again on its port.
type listener struct {
	addr    string
	handler http.Handler
	ln      net.Listener // nil while down
	server  *http.Server
	done    chan struct{} // closed when the server's accept loop has ended
	kept    *os.File      // holds the port while down, so that no other test's server gets it; nil if none
}

// bind takes a port for l and serves nothing yet. Another process may use for a
// moment the port that was ours, so bind tries for some seconds.
func (s *servers) bind(l *listener) {
	s.t.Helper()
	l.letGo()
	ln, err := net.Listen("tcp", l.addr)
	for range 100 {
		if err == nil {
			break
		}
		<-time.After(50 * time.Millisecond)
		ln, err = net.Listen("tcp", l.addr)
	}
	if err != nil {
		s.t.Fatalf("upstreamtest: listening: %v", err)
	}
	l.addr, l.ln = ln.Addr().String(), ln
}

// serve begins to answer at l, which is bound.
func (s *servers) serve(l *listener) {
	done, ln := make(chan struct{}), l.ln
	server := &http.Server{Handler: l.handler, ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(s.http2)
	l.server, l.done = server, done
	go func() {
		defer close(done)
		if s.tlsConfig == nil {
			_ = server.Serve(ln)
			return
		}
		server.TLSConfig = s.tlsConfig.Clone()
		_ = server.ServeTLS(ln, "", "")
	}()
}

// down closes the listener and all its connections.
func (l *listener) down() {
	if l == nil || l.ln == nil {
		return
	}
	_ = l.ln.Close() // a server that has just been started does not know its listener yet
	if l.server != nil {
		_ = l.server.Close()
		<-l.done
	}
	l.server, l.ln = nil, nil
	l.keep()
}

// keep holds the port of a server that is down by a socket that is bound and does not listen:
// connections are refused as before. Where that can't be had the port is free.
func (l *listener) keep() {
	at, err := netip.ParseAddrPort(l.addr)
	if err != nil || !at.Addr().Is4() {
		return
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	l.kept = os.NewFile(uintptr(fd), l.addr)
	if syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) != nil ||
		syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}) != nil {
		l.letGo()
	}
}

// letGo frees the port that keep holds.
func (l *listener) letGo() {
	if l.kept != nil {
		_ = l.kept.Close() // nothing was written
	}
	l.kept = nil
}

// Down closes the listeners of all servers and cuts their connections. New ones are
// refused. It must not run at the same time as Up or Down.
func (s *servers) Down() {
	for _, l := range []*listener{s.main, s.token, s.cdn} {
		l.down()
	}
}

// Up starts the servers again, on the same ports.
func (s *servers) Up() {
	s.t.Helper()
	var bound []*listener
	for _, l := range []*listener{s.main, s.token, s.cdn} {
		if l != nil && l.ln == nil {
			s.bind(l)
			bound = append(bound, l)
		}
	}
	for _, l := range bound { // after all are bound, since each server names the others' addresses
		s.serve(l)
	}
}

// makeCertificate makes a CA and one certificate for all servers.
func (s *servers) makeCertificate() {
	s.t.Helper()
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
	caKey, caDER := s.sign(ca, ca, nil)
	leafKey, leafDER := s.sign(leaf, ca, caKey)
	s.tlsConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}}}
	s.caFile = filepath.Join(s.t.TempDir(), "ca.pem")
	if err := os.WriteFile(s.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o600); err != nil {
		s.t.Fatalf("upstreamtest: writing the CA: %v", err)
	}
}

// sign makes a key and a certificate for it. Without a parentKey the certificate
// signs itself.
func (s *servers) sign(cert, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatalf("upstreamtest: making a key: %v", err)
	}
	if parentKey == nil {
		parentKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		s.t.Fatalf("upstreamtest: signing a certificate: %v", err)
	}
	return key, der
}

// Tunnel copies between conn and the server at addr until either ends. A proxy does
// that for CONNECT.
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
