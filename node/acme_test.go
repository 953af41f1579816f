package node

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/node/gate"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// acmeConfig is a config of certificates for these names, from a server that is not there.
func acmeConfig(domains string) string {
	return "tls: {acme: {domains: [" + domains + "], directory: 'https://127.0.0.1:1/dir'}}"
}

// While an ACME server gives no certificate the node serves all the same, over TLS with a
// certificate that nobody trusts, says what is wrong, and no handshake makes it ask for
// other names. Domains change by a reload.
func TestServesBeforeTheFirstCertificate(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	d := up.PutBlob(repo, random(1, 1000))
	dir := t.TempDir()
	p := served(t, up, settings{top: acmeConfig("a.example.com"), dir: dir}, gate.SystemLimits())
	at := strings.TrimPrefix(p.url, "http://")
	p.url = "https://" + at
	tr := p.client.Transport.(*http.Transport)
	tr.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	p.get(blobPath(d)).want(t, 200)
	if a := p.get("/_/health"); !strings.Contains(string(a.body), "acme: no certificate for a.example.com yet") {
		t.Errorf("health says %s", a.body)
	}
	a := p.get("/")
	shown := a.TLS.PeerCertificates[0]
	if shown.Subject.CommonName != "oci-proxy: no certificate yet" {
		t.Errorf("it shows %v", shown.Subject)
	}
	cfg := &config.Config{}
	cfg.TLS.ACME.Domains, cfg.Defaults.CacheDir = []string{"a.example.com"}, p.node.registries.home
	if !slices.ContainsFunc(Certificates(cfg), shown.Equal) {
		t.Error("a command on this machine does not know it")
	}
	for _, name := range []string{"a.example.com", "stranger.example.com"} {
		conn, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: []string{"acme-tls/1"}})
		if err == nil {
			_ = conn.Close()
			t.Errorf("a challenge for %s is answered though there is none", name)
		}
	}
	info, err := os.Stat(filepath.Join(p.node.registries.home, certsFolder))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info, err)
	}
}

// Domains change by a reload, and what they come from by a restart. A file that cannot be used
// changes nothing.
func TestAReloadNamesOtherDomains(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	r := newReloader(t, up, settings{top: acmeConfig("a.example.com")})
	r.takes(settings{top: acmeConfig("a.example.com, b.example.com")}, []string{"tls.acme.domains"}, nil)
	reasons := ""
	for _, err := range r.node.acme.Health(time.Now()) {
		reasons += err.Error() + "\n"
	}
	if !strings.Contains(reasons, "b.example.com") {
		t.Errorf("it says %s", reasons)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	testkit.Replace(t, file, "no certificate")
	if a := r.reload(settings{top: strings.Replace(acmeConfig("c.example.com"), "}}", ", ca_file: '"+file+"'}}", 1)}); a.StatusCode != http.StatusConflict || !strings.Contains(string(a.body), "holds no PEM certificate") {
		t.Errorf("a bad file: %d %s", a.StatusCode, a.body)
	}
	if got := r.node.registries.cfg().TLS.ACME.Domains; len(got) != 2 {
		t.Errorf("after a bad file there are %v", got)
	}
}
