package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"oci-proxy/node/certs"
	"oci-proxy/node/cluster"
	"oci-proxy/node/config"
)

// certsFolder is the folder of the shelf of certificates, beside the cache: no bound of that
// counts it, and nothing in it is evicted.
const certsFolder = "acme"

// An acme gets the certificates of the clients' port. nil: they are in files, or there are none.
type acme struct{ *certs.Certs }

// openACME reads the certificates that the node got before. now returns the config in force.
func openACME(cfg *config.Config, home string, now func() *config.Config, log *slog.Logger) (*acme, error) {
	if !cfg.TLS.ACME.On() {
		return nil, nil
	}
	c, err := certs.Open(certs.Config{
		Settings: settingsOf(cfg), Dir: filepath.Join(home, certsFolder), Log: log,
		Proxy: func(r *http.Request) (*url.URL, error) {
			if p := now().Defaults.UpstreamProxy; p != nil {
				return p, nil
			}
			return http.ProxyFromEnvironment(r)
		},
	})
	if err != nil {
		return nil, err
	}
	return &acme{c}, nil
}

// settingsOf says which certificates the config wants.
func settingsOf(cfg *config.Config) certs.Settings {
	a := cfg.TLS.ACME
	return certs.Settings{Domains: a.Domains, Email: a.Email, Directory: a.Directory, CAFile: a.CAFile, Asks: cfg.Cluster == nil || cfg.Cluster.Egress}
}

// answers returns who speaks when members ask about certificates; nil: none may ask.
func (a *acme) answers() func(ctx context.Context, sender string, question []byte) (any, error) {
	if a == nil {
		return nil
	}
	return a.Answer
}

// join makes the node one of the members that keep certificates.
func (a *acme) join(c *cluster.Cluster) {
	if a == nil {
		return
	}
	if members := cluster.KeepersOf(c); members != nil {
		a.Join(members)
	}
}

// prepare makes other settings ready. Until commit is called nothing has changed.
func (a *acme) prepare(cfg *config.Config) (commit func(), err error) {
	if a == nil || !cfg.TLS.ACME.On() {
		return func() {}, nil
	}
	return a.Prepare(settingsOf(cfg))
}

// getCertificates gets and renews certificates until ctx ends. at is the clients' port.
func getCertificates(ctx context.Context, n *Node, at net.Addr) {
	if n.acme == nil {
		return
	}
	n.cluster.AwaitOthers(ctx)
	n.acme.Run(ctx, at)
}

// await waits until the certificates of the other members were looked for.
func (a *acme) await(ctx context.Context) {
	if a != nil {
		a.AwaitFirst(ctx)
	}
}

// health lists what is wrong with the certificates.
func (a *acme) health(now time.Time) []error {
	if a == nil {
		return nil
	}
	return a.Health(now)
}

// close ends what is under way.
func (a *acme) close(ctx context.Context) {
	if a != nil {
		a.Close(ctx)
	}
}

// serverTLS is how the clients' port speaks TLS, nil for plain HTTP.
func serverTLS(n *Node) *tls.Config {
	if n.acme != nil {
		return n.acme.Server()
	}
	return n.cert.server()
}

// Certificates returns the certificates, without keys, by which a command on this machine knows
// the node of the config: those that it got by ACME. Without the right to read them there are
// none.
func Certificates(cfg *config.Config) []*x509.Certificate {
	if !cfg.TLS.ACME.On() {
		return nil
	}
	return certs.On(filepath.Join(resolve(cfg.Defaults.CacheDir), certsFolder))
}
