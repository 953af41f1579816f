package config

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// minSecret is the least length of a cluster's secret, in bytes.
const minSecret = 16

// A clusterChecker applies the rules of a cluster. It sees the rest of the config:
// what that protects says whether a secret is needed.
type clusterChecker struct {
	*report
	config  *Config
	entries []entry
}

// check completes the cluster and checks its ports and secrets.
func (k *clusterChecker) check(c *Cluster) {
	if c.Name == "" && !k.failed("cluster.name") {
		var err error
		if c.Name, err = os.Hostname(); err != nil || c.Name == "" {
			k.problem(k.at("cluster.name", "cluster"), "cluster.name", "the node needs a name, and this machine has no host name to use; set cluster.name")
		}
	}
	k.checkPorts(c)
	k.gatherSecrets(c)
	k.requireSecret(c)
}

// requireSecret makes sure that the cluster has a secret. Without one, anybody
// who reaches its ports can join and pull. That is accepted only if nobody but
// this machine reaches them and nothing is kept from this machine's users.
func (k *clusterChecker) requireSecret(c *Cluster) {
	failed := slices.ContainsFunc([]string{"cluster.secret", "cluster.secret_file", "cluster.secrets"}, k.failed)
	if failed || len(c.Secrets) > 0 {
		return
	}
	at := k.at("cluster.secret", "cluster")
	if !loopback(c.BindAddr) || !loopback(c.PeerAddr) || c.Advertise != "" && !loopback(c.Advertise) {
		k.problem(at, "cluster.secret", "a cluster needs a secret if other machines can reach this node; set cluster.secret or cluster.secret_file, or make bind_addr, peer_addr and advertise loopback addresses")
	} else if guard := k.guard(); guard != "" {
		k.problem(at, "cluster.secret", "a cluster needs a secret if %s (%s) is set, even on loopback: without it any user of this machine could join and pull what that protects; set cluster.secret or cluster.secret_file", guard, k.at(guard))
	}
}

// guard returns the path of a key that keeps content from some users, or "".
func (k *clusterChecker) guard() string {
	switch auth := k.config.Auth; {
	case auth.Username != "":
		return "auth.username"
	case auth.HtpasswdFile != "":
		return "auth.htpasswd_file"
	}
	for _, e := range k.entries {
		switch {
		case e.Username != "":
			return e.path + ".auth.username"
		case e.auth().Elsewhere():
			return e.path + ".auth"
		case len(e.Accounts) > 0:
			return e.path + ".accounts"
		case e.Private:
			return e.path + ".private"
		}
	}
	return ""
}

// checkPorts makes sure that no two listeners of this node want the same port.
func (k *clusterChecker) checkPorts(c *Cluster) {
	clients := listenerAt("port", k.config.Address, strconv.Itoa(k.config.Port))
	host, port, _ := cutPort(c.BindAddr)
	gossip := listenerAt("cluster.bind_addr", host, port)
	host, port, _ = cutPort(c.PeerAddr)
	peers := listenerAt("cluster.peer_addr", host, port)
	for _, pair := range [][2]listener{{clients, gossip}, {clients, peers}, {gossip, peers}} {
		a, b := pair[0], pair[1]
		if !k.isSet(b.path) {
			a, b = b, a // report the key that was set; two defaults do not collide
		}
		if a.collides(b) {
			k.problem(k.at(b.path), b.path, "port %s is also that of %s; change one of them", b.port, a.path)
		}
	}
}

// A listener is the address that one key tells the node to listen on.
type listener struct{ path, host, port string }

func listenerAt(path, host, port string) listener {
	switch host = strings.Trim(host, "[]"); host {
	case "0.0.0.0", "::":
		host = "" // all interfaces
	}
	return listener{path, host, port}
}

// collides reports whether a and b cannot both be opened.
func (a listener) collides(b listener) bool {
	return a.port == b.port && a.port != "0" && (a.host == b.host || a.host == "" || b.host == "")
}

// gatherSecrets moves the cluster's secrets to c.Secrets, whichever key set them.
func (k *clusterChecker) gatherSecrets(c *Cluster) {
	var paths []string
	given := func(path string) {
		if paths = append(paths, path); len(paths) > 1 {
			k.problem(k.at(path), path, "is set as well as %s; keep one of them", strings.TrimPrefix(paths[0], "cluster."))
		}
	}
	if c.secret != "" {
		given("cluster.secret")
		k.checkSecrets("cluster.secret", []Secret{c.secret})
	}
	if c.secretFile != "" {
		given("cluster.secret_file")
	}
	if len(c.Secrets) > 0 {
		given("cluster.secrets")
		k.checkSecrets("cluster.secrets", c.Secrets)
	}
	if c.secret != "" {
		c.Secrets = []Secret{c.secret}
	}
	if c.secretFile != "" {
		c.Secrets = k.secretsFrom(c.secretFile)
	}
	c.secret, c.secretFile = "", ""
}

// secretsFrom returns the secrets in the file, one on each line.
func (k *clusterChecker) secretsFrom(file string) []Secret {
	const path = "cluster.secret_file"
	text, err := readSecret(file)
	if err != nil {
		k.problem(k.at(path), path, "%s", err)
		return nil
	}
	var secrets []Secret
	for line := range strings.Lines(text) {
		secrets = append(secrets, Secret(strings.TrimRight(line, "\r\n")))
	}
	k.checkSecrets(path, secrets)
	return secrets
}

// checkSecrets makes sure that the secrets that path set are long enough.
func (k *clusterChecker) checkSecrets(path string, secrets []Secret) {
	for i, s := range secrets {
		if len(s) < minSecret {
			at := index(path, i)
			k.problem(k.at(at, path), path, "secret %d of %d has %d characters; use at least %d", i+1, len(secrets), len(s), minSecret)
		}
	}
}
