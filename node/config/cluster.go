package config

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// minSecret is the least length of a cluster's secret, in bytes.
const minSecret = 16

func (l *loader) checkCluster(c *Cluster) {
	if c.Name == "" && !l.failed("cluster.name") {
		var err error
		if c.Name, err = os.Hostname(); err != nil || c.Name == "" {
			l.problem(l.at("cluster.name", "cluster"), "cluster.name", "is needed, for this host does not know its name")
		}
	}
	l.checkPorts(c)
	l.gatherSecrets(c)
	l.requireSecret(c)
}

// requireSecret makes sure that a cluster has a secret unless only this machine
// can reach it and it holds nothing that its users may not all have: without a
// secret, whoever reaches the ports can join and pull.
func (l *loader) requireSecret(c *Cluster) {
	given := slices.ContainsFunc([]string{"cluster.secret", "cluster.secret_file", "cluster.secrets"}, l.failed)
	if given || len(c.Secrets) > 0 {
		return
	}
	at := l.at("cluster.secret", "cluster")
	if !loopback(c.BindAddr) || !loopback(c.PeerAddr) || c.Advertise != "" && !loopback(c.Advertise) {
		l.problem(at, "cluster.secret", "cluster.secret or secret_file is needed unless bind_addr, peer_addr and advertise are all loopback")
	} else if guard := l.guard(); guard != "" {
		l.problem(at, "cluster.secret", "cluster.secret or secret_file is needed even on loopback, because of %s (%s): without it, any user of this machine could join and pull what that protects", guard, l.at(guard))
	}
}

// guard returns the path of a key that keeps content from some people, "" if
// there is none.
func (l *loader) guard() string {
	switch auth := l.config.Auth; {
	case auth.Username != "":
		return "auth.username"
	case auth.HtpasswdFile != "":
		return "auth.htpasswd_file"
	}
	for _, e := range l.entries {
		switch {
		case e.Username != "":
			return e.path + ".auth.username"
		case e.Private:
			return e.path + ".private"
		}
	}
	return ""
}

// checkPorts makes sure that no two listeners of this node want one port.
func (l *loader) checkPorts(c *Cluster) {
	clients := listenerAt("port", l.config.Address, strconv.Itoa(l.config.Port))
	host, port, _ := cutPort(c.BindAddr)
	gossip := listenerAt("cluster.bind_addr", host, port)
	host, port, _ = cutPort(c.PeerAddr)
	peers := listenerAt("cluster.peer_addr", host, port)
	for _, pair := range [][2]listener{{clients, gossip}, {clients, peers}, {gossip, peers}} {
		a, b := pair[0], pair[1]
		if _, said := l.places[b.path]; !said {
			a, b = b, a // the other one was: two defaults do not meet
		}
		if a.meets(b) {
			l.problem(l.at(b.path), b.path, "wants port %s, as %s does", b.port, a.path)
		}
	}
}

// A listener is what one key says about where to listen.
type listener struct{ path, host, port string }

func listenerAt(path, host, port string) listener {
	switch host = strings.Trim(host, "[]"); host {
	case "0.0.0.0", "::":
		host = "" // all interfaces
	}
	return listener{path, host, port}
}

func (a listener) meets(b listener) bool {
	return a.port == b.port && a.port != "0" && (a.host == b.host || a.host == "" || b.host == "")
}

// gatherSecrets moves the cluster's secrets, wherever they are, to c.Secrets.
func (l *loader) gatherSecrets(c *Cluster) {
	var paths []string
	given := func(path string) {
		if paths = append(paths, path); len(paths) > 1 {
			l.problem(l.at(path), path, "stands beside %s; keep one of them", strings.TrimPrefix(paths[0], "cluster."))
		}
	}
	if c.secret != "" {
		given("cluster.secret")
		l.checkSecrets("cluster.secret", []Secret{c.secret})
	}
	if c.secretFile != "" {
		given("cluster.secret_file")
	}
	if len(c.Secrets) > 0 {
		given("cluster.secrets")
		l.checkSecrets("cluster.secrets", c.Secrets)
	}
	if c.secret != "" {
		c.Secrets = []Secret{c.secret}
	}
	if c.secretFile != "" {
		c.Secrets = l.secretsFrom(c.secretFile)
	}
	c.secret, c.secretFile = "", ""
}

// secretsFrom returns the lines of the file.
func (l *loader) secretsFrom(file string) []Secret {
	const path = "cluster.secret_file"
	text, err := readSecret(file)
	if err != nil {
		l.problem(l.at(path), path, "%s", err)
		return nil
	}
	var secrets []Secret
	for line := range strings.Lines(text) {
		secrets = append(secrets, Secret(strings.TrimRight(line, "\r\n")))
	}
	l.checkSecrets(path, secrets)
	return secrets
}

func (l *loader) checkSecrets(path string, secrets []Secret) {
	for i, s := range secrets {
		if len(s) < minSecret {
			at := index(path, i)
			l.problem(l.at(at, path), path, "secret %d of %d has %d characters; it needs at least %d", i+1, len(secrets), len(s), minSecret)
		}
	}
}
