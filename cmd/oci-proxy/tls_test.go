package main

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
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/transfer/upstreamtest"
)

// certificate makes a self-signed certificate for loopback.
func certificate(t *testing.T) config.TLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := config.TLS{CertFile: filepath.Join(t.TempDir(), "cert.pem"), KeyFile: filepath.Join(t.TempDir(), "key.pem")}
	for file, b := range map[string]*pem.Block{files.CertFile: {Type: "CERTIFICATE", Bytes: der}, files.KeyFile: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestCommandsAskANodeThatSpeaksTLS(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	files := certificate(t)
	file, addr := nodeConfig(t, up, t.TempDir(), fmt.Sprintf("auth: {username: u, password: p}\ntls: {cert_file: %q, key_file: %q}", files.CertFile, files.KeyFile))
	p := start(t, addr, "serve", "-c", file)
	login := configFile(t, "auth: {username: u, password: p}") // of a user without the certificate
	none := configFile(t, "port: 1")
	for _, c := range []struct {
		args   []string
		status int
		said   string
	}{
		{[]string{"health", "-c", file}, exitDone, "healthy"},
		{[]string{"health", "-addr", addr}, exitDone, "healthy"},
		{[]string{"health", "-addr", "https://" + addr + "/"}, exitDone, "healthy"},
		{[]string{"status", "-c", file}, exitDone, "NODE"},
		{[]string{"status", "-c", file, "-addr", addr}, exitDone, "NODE"},
		{[]string{"status", "-c", login, "-addr", "https://" + addr}, exitFailed, "certificate"}, // the login is not sent
		{[]string{"status", "-c", none, "-addr", "https://" + addr}, exitFailed, "requires a login"},
		{[]string{"status", "-c", login, "-addr", addr}, exitFailed, "400"},
		{[]string{"leave", "-c", file}, exitFailed, "not in a cluster"},
	} {
		got := call(t.Context(), c.args...)
		if got.status != c.status {
			t.Errorf("%v: %+v", c.args, got)
		}
		wantIn(t, got.out+got.err, c.said)
	}
	// A certificate file that is damaged later must not keep health from finding the
	// node, which goes on with the one that it has read.
	if err := os.WriteFile(files.CertFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := call(t.Context(), "health", "-c", file); got.status != exitDone {
		t.Errorf("%+v", got)
	}
	if status := p.end(syscall.SIGTERM); status != exitDone {
		t.Errorf("status %d", status)
	}
}

// A node on another machine must prove who it is, whether there is a login or not.
func TestWhichCertificatesAreAccepted(t *testing.T) {
	t.Parallel()
	files, others := certificate(t), certificate(t)
	shown, err := config.ReadCertificate(files)
	if err != nil {
		t.Fatal(err)
	}
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{shown.Leaf}}
	for _, c := range []struct {
		base, user string
		files      config.TLS
		ok         bool
	}{
		{"https://127.0.0.1:1", "u", files, true},
		{"https://192.0.2.1:1", "u", files, true},
		{"https://127.0.0.1:1", "u", others, false},
		{"https://127.0.0.1:1", "u", config.TLS{}, false},
		{"https://127.0.0.1:1", "", config.TLS{}, true},
		{"https://[::1]:1", "", config.TLS{}, true},
		{"https://localhost:1", "", config.TLS{}, true},
		{"https://192.0.2.1:1", "", config.TLS{}, false},
		{"https://localhost.example.com", "", config.TLS{}, false},
		{"https://node.example.com", "u", config.TLS{}, false},
	} {
		err := target{base: c.base, auth: config.Auth{Username: c.user}}.verify(&config.Config{TLS: c.files})(state)
		if (err == nil) != c.ok {
			t.Errorf("%s as %q: %v", c.base, c.user, err)
		}
	}
}

// Over plain HTTP, a login is sent only to this machine, unless the user wrote
// http://.
func TestLoginIsNotSentUnencrypted(t *testing.T) {
	t.Parallel()
	const foreign = "192.0.2.1:80"
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		user, addr, dialled string
		ok                  bool
	}
	rows := []row{
		{"u", "node.example:80", foreign, false},
		{"u", "node.example:80", "[::ffff:192.0.2.1]:80", false},
		{"u", "localhost:80", foreign, false}, // the address counts, not the name
		{"u", "node.example:80", "127.0.0.2:80", true},
		{"u", "[::1]:80", "[::1]:80", true},
		{"u", "http://node.example:80", foreign, true},
		{"u", "https://node.example", foreign, true}, // the node must prove who it is
		{"", "node.example:80", foreign, true},
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row{"u", "node.example:80", netip.AddrPortFrom(p.Addr(), 80).String(), true})
	}
	for _, r := range rows {
		at := target{addr: r.addr, base: baseURL(r.addr, false), auth: config.Auth{Username: r.user}}
		if err := at.guardLogin(t.Context(), "tcp", r.dialled, nil); (err == nil) != r.ok {
			t.Errorf("%+v: %v", r, err)
		}
	}
	file := configFile(t, "auth: {username: u, password: p}")
	for _, command := range []string{"status", "leave"} {
		got := call(t.Context(), command, "-c", file, "-addr", foreign)
		if got.status != exitFailed {
			t.Errorf("%+v", got)
		}
		wantIn(t, got.err, "unencrypted")
	}
}
