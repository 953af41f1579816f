package chart

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// A config is what the rules need to know of a node's config.
type config struct {
	Port            int32  `json:"port"`
	ShutdownTimeout string `json:"shutdown_timeout"`
	TLS             struct {
		CertFile string `json:"cert_file"`
		ACME     struct {
			Domains []string `json:"domains"`
		} `json:"acme"`
	} `json:"tls"`
	Cluster struct {
		Seeds []string `json:"seeds"`
	} `json:"cluster"`
}

// speaksTLS reports whether the clients' port speaks TLS.
func (c config) speaksTLS() bool { return c.TLS.CertFile != "" || len(c.TLS.ACME.Domains) > 0 }

// drain returns shutdown_timeout in seconds.
func (c config) drain() int64 {
	d, err := time.ParseDuration(c.ShutdownTimeout)
	if err != nil {
		d = time.Minute // the default
	}
	return int64(d.Seconds())
}

// configText returns the file of the config, as nodes find it.
func (w *world) configText() []byte { return w.secrets[w.node().name+"-config"].Data["config.yaml"] }

// config reads the config that nodes are given.
func (w *world) config() (c config, err error) {
	return c, yaml.Unmarshal(w.configText(), &c)
}

// checkConfig runs `oci-proxy check` over the config, with the environment that the pods have.
func (w *world) checkConfig(ctx context.Context, program, scratch string) error {
	file, secret := filepath.Join(scratch, "config.yaml"), filepath.Join(scratch, "secret")
	// The certificate is the operator's: it would lie in /tls.
	if err := certify(filepath.Join(scratch, "tls")); err != nil {
		return err
	}
	text := bytes.ReplaceAll(w.configText(), []byte("/tls/"), []byte(scratch+"/"))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(secret, w.clusterSecret(), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "check", "-c", file)
	for _, v := range w.node().pod.Spec.Containers[0].Env {
		switch {
		case v.Name == "OCI_PROXY_CONFIG":
		case v.Name == "OCI_PROXY_CLUSTER__SECRET_FILE":
			cmd.Env = append(cmd.Env, v.Name+"="+secret)
		case v.ValueFrom == nil:
			cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
		case v.ValueFrom.FieldRef != nil && v.ValueFrom.FieldRef.FieldPath == "status.podIP":
			cmd.Env = append(cmd.Env, v.Name+"=10.1.2.3")
		case v.ValueFrom.FieldRef != nil && strings.HasPrefix(v.ValueFrom.FieldRef.FieldPath, "metadata.labels"):
			cmd.Env = append(cmd.Env, v.Name+"=") // before 1.35
		default:
			cmd.Env = append(cmd.Env, v.Name+"=machine-1.example")
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil || warned(out) {
		return fmt.Errorf("oci-proxy check: %w: %s in\n%s", err, out, w.configText())
	}
	return nil
}

// warned reports whether check doubts anything, but that a Service leads port 443 to the nodes.
func warned(out []byte) bool {
	for line := range bytes.Lines(out) {
		if bytes.Contains(line, []byte(": warning: ")) && !bytes.Contains(line, []byte("let port 443 of these names lead here")) {
			return true
		}
	}
	return false
}

// clusterSecret returns the secret that the chart made, or one in place of the operator's.
func (w *world) clusterSecret() []byte {
	for _, v := range w.node().pod.Spec.Volumes {
		if v.Name != "secret" {
			continue
		}
		if s := w.secrets[v.Secret.SecretName]; s != nil {
			return s.Data[v.Secret.Items[0].Key]
		}
	}
	return []byte(rand.Text() + rand.Text())
}

// certify writes a certificate and its key, for a year, as PATH.crt and PATH.key.
func certify(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	like := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"proxy.example"}, NotAfter: time.Now().AddDate(1, 0, 0)}
	cert, err := x509.CreateCertificate(rand.Reader, like, like, &key.PublicKey, key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for suffix, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: cert}, ".key": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path+suffix, pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}
