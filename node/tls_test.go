package node

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/node/gate"
	"oci-proxy/node/reload"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A pair is a certificate and its key in files.
type pair struct {
	cert, key string
	pool      *x509.CertPool // trusts the certificate
}

// newPair makes a pair.
func newPair(t *testing.T, name string) pair {
	t.Helper()
	dir := t.TempDir()
	p := pair{cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	cert, key := makePair(t, name)
	testkit.Replace(t, p.cert, cert)
	testkit.Replace(t, p.key, key)
	p.pool = x509.NewCertPool()
	p.pool.AppendCertsFromPEM([]byte(cert))
	return p
}

func makePair(t *testing.T, name string) (cert, key string) {
	t.Helper()
	return makePairFor(t, name, time.Unix(0, 0), time.Unix(1<<33, 0))
}

// makePairFor makes a pair that is valid for that time.
func makePairFor(t *testing.T, name string, since, until time.Time) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: since, NotAfter: until, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", raw)
}

func (p pair) config() string {
	return fmt.Sprintf("tls: {cert_file: %q, key_file: %q}", p.cert, p.key)
}

// overtls returns a proxy whose client uses TLS with HTTP/2 or HTTP/1.1.
func overtls(t *testing.T, up *upstreamtest.Registry, files pair, two bool) *proxy {
	t.Helper()
	p := served(t, up, settings{top: files.config()}, gate.SystemLimits())
	tr := p.client.Transport.(*http.Transport)
	tr.TLSClientConfig = &tls.Config{RootCAs: files.pool}
	tr.ForceAttemptHTTP2 = two
	p.url = strings.Replace(p.url, "http://", "https://", 1)
	return p
}

func TestPullsOverTLS(t *testing.T) {
	t.Parallel()
	files := newPair(t, "proxy.example")
	for proto, two := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			content := random(1, 5<<20+7)
			d := up.PutBlob(repo, content)
			p := overtls(t, up, files, two)
			for _, how := range []string{"oci-proxy; fwd=uri-miss; stored", "oci-proxy; hit"} {
				a := p.get(blobPath(d))
				a.want(t, 200, "Cache-Status", how)
				if !bytes.Equal(a.body, content) || a.Proto != proto || a.TLS.Version < tls.VersionTLS12 {
					t.Errorf("%d bytes, %v, by %s", len(a.body), a.err, a.Proto)
				}
			}
			p.get(blobPath(d), "Range", "bytes=5-9").want(t, 206, "Content-Length", "5")
			p.get("/").want(t, 200)
			p.get("/_/health").want(t, 200)
			p.get("/_/stats").want(t, 200)
		})
	}
}

// If a body without a length cannot be finished, clients see a cut connection, also over
// HTTP/2. containerd then asks for the rest.
func TestCutOverHTTP2IsOneThatClientsMend(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	for name, untold := range map[string]bool{"with a length": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			d := up.PutBlob(repo, random(1, size))
			release := halved(up, size, upstreamtest.Fault{
				Match: upstreamtest.Match{PathPart: "/blobs/"}, Corrupt: true, CorruptAt: size - 1, NoLength: untold,
			})
			p := overtls(t, up, newPair(t, "proxy.example"), true)
			resp := p.send(http.MethodGet, blobPath(d))
			if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			release()
			if a := read(resp); !errors.Is(a.err, io.ErrUnexpectedEOF) || a.Proto != "HTTP/2.0" || len(a.body) > size-64<<10 {
				t.Errorf("%d bytes by %s, %v; want an unexpected EOF", len(a.body), a.Proto, a.err)
			}
		})
	}
}

func TestWhatIsNotTLSOrTooOldIsRefused(t *testing.T) {
	t.Parallel()
	files := newPair(t, "proxy.example")
	p := overtls(t, upstreamtest.New(t), files, true)
	addr := strings.TrimPrefix(p.url, "https://")
	old := &tls.Config{RootCAs: files.pool, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if c, err := tls.Dial("tcp", addr, old); err == nil {
		_ = c.Close()
		t.Error("the node accepts TLS 1.1")
	}
	plain, err := newClient(t).Get("http://" + addr + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	if a := read(plain); a.StatusCode != 400 {
		t.Errorf("plain HTTP: %d", a.StatusCode)
	}
	// Without TLS there is no HTTP/2, neither by prior knowledge nor by upgrade.
	inClear := served(t, upstreamtest.New(t), settings{}, gate.SystemLimits())
	h2c := inClear.dial()
	fmt.Fprintf(h2c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if b, err := io.ReadAll(h2c); err != nil || !bytes.HasPrefix(b, []byte("HTTP/1.1 ")) {
		t.Errorf("HTTP/2 in the clear: %q, %v", b, err)
	}
	inClear.get("/v2/", "Upgrade", "h2c", "Connection", "Upgrade, HTTP2-Settings", "HTTP2-Settings", "AAMAAABkAAQAAP__").want(t, 200, "Upgrade", "")
}

func TestCertificatesAreReadAgain(t *testing.T) {
	t.Parallel()
	files := newPair(t, "one.example")
	synctest.Test(t, func(t *testing.T) {
		n, log := newNodeOf(t, fmt.Sprintf("defaults: {cache_dir: %q}\n%s", t.TempDir(), files.config()))
		defer func() {
			if err := n.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		want := func(name string, well bool) {
			t.Helper()
			time.Sleep(reload.Every) // in the bubble
			c, err := n.cert.server().GetCertificate(nil)
			if err != nil || c.Leaf.Subject.CommonName != name {
				t.Fatalf("%v, %v; want %s", c.Leaf.Subject, err, name)
			}
			if broken := n.reports.broken(); (len(broken) == 0) != well {
				t.Errorf("health says %v", broken)
			}
		}
		want("one.example", true)
		cert, key := makePair(t, "two.example")
		testkit.Replace(t, files.cert, cert)
		want("one.example", false) // half a pair
		testkit.Replace(t, files.key, key)
		want("two.example", true)
		for _, bad := range []string{"", "no PEM", strings.Replace(cert, "MII", "XXX", 1)} {
			testkit.Replace(t, files.cert, bad)
			want("two.example", false)
		}
		if err := os.Remove(files.key); err != nil {
			t.Fatal(err)
		}
		want("two.example", false)
		cert, key = makePair(t, "three.example")
		testkit.Replace(t, files.key, key)
		testkit.Replace(t, files.cert, cert)
		want("three.example", true)
		if strings.Count(log.String(), "files read again") != 2 || strings.Contains(log.String(), "PRIVATE") {
			t.Errorf("log:\n%s", log)
		}
	})
}

// After the files change, the next handshake over the wire shows the new certificate.
func TestNewHandshakesGetTheNewCertificate(t *testing.T) {
	t.Parallel()
	files := newPair(t, "one.example")
	p := overtls(t, upstreamtest.New(t), files, false)
	p.get("/v2/").want(t, 200)
	cert, key := makePair(t, "two.example")
	testkit.Replace(t, files.cert, cert)
	testkit.Replace(t, files.key, key)
	p.node.cert.files.Load().Expire() // as if time had passed
	p.get("/v2/").want(t, 200)        // on the same connection
	p.client.CloseIdleConnections()
	if _, err := p.try(http.MethodGet, "/v2/"); err == nil {
		t.Error("the old certificate is still shown")
	}
	p.client.Transport.(*http.Transport).TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(cert))
	p.get("/v2/").want(t, 200)
}

// A connection with half a handshake is closed, as one with half a request is.
func TestHalfHandshakesEnd(t *testing.T) {
	t.Parallel()
	files := newPair(t, "proxy.example")
	for name, sent := range map[string]string{"nothing": "", "a record's beginning": "\x16\x03\x01\x02\x00\x01"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				n, _ := newNodeOf(t, fmt.Sprintf("defaults: {cache_dir: %q}\n%s", dir, files.config()))
				l, srv := newPipes(), n.server()
				over := make(chan error, 1)
				go func() { over <- serve(srv, l) }()
				conn := l.dial()
				start := time.Now()
				go func() { _, _ = io.WriteString(conn, sent) }() // the node may hang up first
				_, _ = io.Copy(io.Discard, conn)
				if took := time.Since(start); took > headerTime {
					t.Errorf("closed after %s", took)
				}
				_ = srv.Close()
				<-over
				if err := n.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A reload may name other files: the next handshake shows the certificate in them. It turns TLS
// neither on nor off.
func TestAReloadNamesOtherCertificateFiles(t *testing.T) {
	t.Parallel()
	up, first, second := upstreamtest.New(t), newPair(t, "one.example"), newPair(t, "two.example")
	p := overtls(t, up, first, false)
	dir := t.TempDir()
	reload := func(top string) config.Changes {
		t.Helper()
		s := settings{top: top, dir: dir}
		p.node.ReloadFrom(Source{Load: func() (*config.Config, error) { return config.Parse("test.yaml", []byte(s.text(t, up)), nil) }})
		changes, err := p.node.Reload(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return changes
	}
	p.get("/v2/").want(t, http.StatusOK)
	if changes := reload(second.config()); !slices.Equal(changes.Live, []string{"tls.cert_file", "tls.key_file"}) {
		t.Errorf("%+v", changes)
	}
	p.client.CloseIdleConnections()
	if _, err := p.try(http.MethodGet, "/v2/"); err == nil {
		t.Error("the old certificate is still shown")
	}
	if changes := reload(""); !slices.Contains(changes.Restart, "tls.cert_file") || slices.Contains(changes.Live, "tls.cert_file") {
		t.Errorf("TLS is turned off: %+v", changes)
	}
	cert, err := os.ReadFile(second.cert)
	if err != nil {
		t.Fatal(err)
	}
	p.client.Transport.(*http.Transport).TLSClientConfig.RootCAs.AppendCertsFromPEM(cert)
	p.get("/v2/").want(t, http.StatusOK)
}
