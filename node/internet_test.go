package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"oci-proxy/transfer/upstreamtest"
)

// An internet holds all the hosts that a node can reach through its only way out, a proxy.
// It records which host was asked for what.
type internet struct {
	proxy         *httptest.Server
	secure, clear *httptest.Server // serve the hosts behind CONNECT, over TLS and in the clear
	password      string           // of the proxy's login
	mu            sync.Mutex
	hosts         map[string]http.HandlerFunc // by scheme://host:port
	others        http.HandlerFunc            // any other host, nil for none
	visits        []visit
}

// A visit is one request to a host, or one request to the proxy to connect to a host.
type visit struct {
	to            string // scheme://host:port, or connect:// for the proxy
	method, path  string
	query, header string
}

func (v visit) String() string {
	return v.method + " " + v.to + v.path + "?" + v.query + "\n" + v.header
}

// newInternet starts an internet without hosts.
func newInternet(t testing.TB) *internet {
	w := &internet{hosts: map[string]http.HandlerFunc{}, password: canary + "-proxy"}
	w.proxy = quiet(http.HandlerFunc(w.serveProxy))
	w.secure = quiet(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.serve("https", rw, r) }))
	w.clear = quiet(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.serve("http", rw, r) }))
	w.secure.TLS = &tls.Config{GetCertificate: authority.certify}
	w.proxy.Start()
	w.clear.Start()
	w.secure.StartTLS()
	t.Cleanup(func() {
		w.secure.CloseClientConnections()
		w.secure.Close()
		w.clear.Close()
		w.proxy.Close()
	})
	return w
}

// stop ends the proxy, and every connection through it.
func (w *internet) stop() {
	w.secure.CloseClientConnections()
	w.clear.CloseClientConnections()
	w.proxy.CloseClientConnections()
	w.proxy.Close()
}

// quiet starts a server that logs nothing, because the tests cause errors on purpose.
func quiet(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	return s
}

// host adds a host. at is scheme://host, with the port unless it is the usual one.
func (w *internet) host(at string, h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts[withPort(at)] = h
}

// withPort adds the usual port if there is none.
func withPort(at string) string {
	scheme, rest, _ := strings.Cut(at, "://")
	if _, _, err := net.SplitHostPort(rest); err != nil {
		rest = net.JoinHostPort(strings.Trim(rest, "[]"), map[string]string{"http": "80", "https": "443"}[scheme])
	}
	return scheme + "://" + strings.ToLower(rest)
}

func (w *internet) note(v visit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.visits = append(w.visits, v)
}

// all returns all visits so far.
func (w *internet) all() []visit {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.visits)
}

func (w *internet) find(at string) http.HandlerFunc {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.hosts[at]; h != nil {
		return h
	}
	return w.others
}

// url is the proxy's URL, with its login.
func (w *internet) url() string {
	return strings.Replace(w.proxy.URL, "http://", "http://out:"+w.password+"@", 1)
}

// serveProxy is the proxy. It serves absolute URLs and CONNECT. CONNECT leads to a TLS
// server, or to a plain one if the host has no other.
func (w *internet) serveProxy(rw http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("out:"+w.password)) {
		rw.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	r.Header.Del("Proxy-Authorization")
	if r.Method != http.MethodConnect {
		w.serve("http", rw, r)
		return
	}
	w.note(visit{to: "connect://" + strings.ToLower(r.Host), method: r.Method})
	to := w.secure
	switch {
	case w.find("https://"+strings.ToLower(r.Host)) != nil:
	case w.find("http://"+strings.ToLower(r.Host)) != nil:
		to = w.clear
	default:
		rw.WriteHeader(http.StatusForbidden)
		return
	}
	conn, _, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	upstreamtest.Tunnel(conn, to.Listener.Addr().String())
}

// serve answers for the host that the request names.
func (w *internet) serve(scheme string, rw http.ResponseWriter, r *http.Request) {
	at := withPort(scheme + "://" + r.Host)
	var header bytes.Buffer
	_ = r.Header.Write(&header)
	w.note(visit{at, r.Method, r.URL.Path, r.URL.RawQuery, header.String()})
	h := w.find(at)
	if h == nil {
		rw.WriteHeader(http.StatusForbidden)
		return
	}
	rw.Header()["Date"] = nil
	h(rw, r)
}

// A certifier is a CA that certifies any name.
type certifier struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	mu   sync.Mutex
	made map[string]*tls.Certificate
}

// authority is trusted by every node of these tests (see TestMain).
var authority = newCertifier()

func newCertifier() *certifier {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a CA of tests"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return &certifier{cert: cert, key: key, made: map[string]*tls.Certificate{}}
}

// certify is a tls.Config's GetCertificate.
func (c *certifier) certify(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if made := c.made[hello.ServerName]; made != nil {
		return made, nil
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(c.made)) + 2), DNSNames: []string{hello.ServerName}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, &c.key.PublicKey, c.key)
	if err != nil {
		return nil, err
	}
	made := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: c.key}
	c.made[hello.ServerName] = made
	return made, nil
}

// trustAuthority makes the process trust the CA, and no other.
func trustAuthority(dir string) error {
	file := filepath.Join(dir, "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.cert.Raw})
	return errors.Join(os.WriteFile(file, block, 0o600), os.Setenv("SSL_CERT_FILE", file))
}

// A directory is the DNS server of these tests. It knows the names that a test gave it,
// and records which names were asked for. No name is looked up anywhere else.
type directory struct {
	mu    sync.Mutex
	names map[string][]netip.Addr // answered one after the other, the last one forever
	asked map[string]int
}

var dns = &directory{names: map[string][]netip.Addr{}, asked: map[string]int{}}

// say gives name these addresses. Each look-up returns the next one.
func (d *directory) say(name string, addrs ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range addrs {
		d.names[name] = append(d.names[name], netip.MustParseAddr(a))
	}
}

// lookups returns how often names with that ending were asked for.
func (d *directory) lookups(suffix string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, count := range d.asked {
		if strings.HasSuffix(name, suffix) {
			n += count
		}
	}
	return n
}

// answer returns the next address of name. A client asks for A and AAAA at the same
// time. Only a question for A is answered, and moves on to the next address.
func (d *directory) answer(name string, kind dnsmessage.Type) (netip.Addr, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked[name]++
	left := d.names[name]
	if len(left) == 0 || kind != dnsmessage.TypeA {
		return netip.Addr{}, false
	}
	if len(left) > 1 {
		d.names[name] = left[1:]
	}
	return left[0], true
}

// dial is a net.Resolver's Dial.
func (d *directory) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		for d.reply(there) == nil {
		}
	}()
	return here, nil
}

// reply answers one question (RFC 1035 section 4.2.2: over a stream, length first).
func (d *directory) reply(conn net.Conn) error {
	var size uint16
	if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
		return err
	}
	raw := make([]byte, size)
	if _, err := io.ReadFull(conn, raw); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(raw); err != nil || len(m.Questions) == 0 {
		return fmt.Errorf("no question: %w", err)
	}
	q := m.Questions[0]
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	name := strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")
	if addr, ok := d.answer(name, q.Type); ok {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 0},
			Body:   &dnsmessage.AResource{A: addr.As4()},
		}}
	} else if q.Type == dnsmessage.TypeA {
		m.RCode = dnsmessage.RCodeNameError
	}
	out, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
	return err
}
