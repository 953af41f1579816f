package config

import (
	"crypto/x509"
	"slices"
	"strings"
)

// check applies the rules that hold across keys, and completes the config.
func (l *loader) check() {
	c := l.config
	l.checkAuth(&c.Auth)
	l.checkTLS(c.TLS)
	l.checkRegistries()
	l.checkProxyVariables()
	if c.Cluster != nil {
		l.checkCluster(c.Cluster)
	}
	l.boundStores()
	for _, e := range l.entries {
		c.Registries = append(c.Registries, e.Registry)
	}
	slices.SortFunc(c.Registries, func(a, b Registry) int { return strings.Compare(a.Host, b.Host) })
}

// checkAuth checks who may use the proxy.
func (l *loader) checkAuth(a *Auth) {
	l.credentials("auth", a.Username, &a.Password, a.passwordFile)
	const users, anonymous = "auth.htpasswd_file", "auth.anonymous_from"
	if a.HtpasswdFile != "" && !l.finding {
		if _, err := ReadUsers(a.HtpasswdFile); err != nil {
			l.problem(l.at(users), users, "%s", err)
		}
	}
	if len(a.AnonymousFrom) > 0 && !a.Asked() && !l.failed("auth.username") && !l.failed(users) {
		l.problem(l.at(anonymous), anonymous, "lets some pull without a login, but no auth.username is set, so nobody needs one")
	}
}

// checkTLS makes sure that the clients' port has a certificate and its key, or
// neither.
func (l *loader) checkTLS(t TLS) {
	const cert, key = "tls.cert_file", "tls.key_file"
	if l.failed(cert) || l.failed(key) {
		return
	}
	switch {
	case t.CertFile == "" && t.KeyFile == "":
	case t.KeyFile == "":
		l.problem(l.at(cert), cert, "needs a key_file")
	case t.CertFile == "":
		l.problem(l.at(key), key, "needs a cert_file")
	case !l.finding:
		if _, err := ReadCertificate(t); err != nil {
			l.problem(l.at(cert), cert, "%s", err)
		}
	}
}

func (l *loader) checkRegistries() {
	for i := range l.entries {
		e := &l.entries[i]
		l.credentials(e.path+".auth", e.Username, &e.Password, e.passwordFile)
		_, said := l.places[e.path+".private"]
		e.Private = e.Private || e.Username != ""
		e.Public = said && !e.Private
		if e.CAFile == "" {
			continue
		}
		path := e.path + ".ca_file"
		pem, err := readSmall(e.CAFile)
		if err != nil {
			l.problem(l.at(path), path, "%s", err)
		} else if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			l.problem(l.at(path), path, "%q holds no PEM certificate", e.CAFile)
		}
	}
	l.checkAliases()
}

// checkProxyVariables checks the proxies that the environment names for those
// who have none in the config: what can't be read there would count for nothing,
// and upstream would be asked without a proxy.
func (l *loader) checkProxyVariables() {
	straight := func(e entry) bool { return e.UpstreamProxy == nil }
	if l.config.Defaults.UpstreamProxy != nil && !slices.ContainsFunc(l.entries, straight) {
		return
	}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		value := l.environ[name]
		if value == "" {
			continue
		}
		if !strings.Contains(value, "://") { // which may be missing
			value = "http://" + value
		}
		if _, err := parseProxy(value); err != nil {
			l.problem(place{variable: name}, "", "the value %s", err)
		}
	}
}

// checkAliases makes sure that the first part of a path means one registry.
func (l *loader) checkAliases() {
	meaning := map[string]string{"library": "the official images of " + DockerHub}
	for _, e := range l.entries {
		meaning[e.Host] = e.Host
		meaning[strings.ReplaceAll(e.Host, ":", "_")] = e.Host
	}
	for _, e := range l.entries {
		for i, alias := range e.Alias {
			path := index(e.path+".alias", i)
			if other, taken := meaning[alias]; taken {
				l.problem(l.at(path, e.path+".alias"), path, "%q already means %s", alias, other)
			}
			meaning[alias] = e.Host
		}
	}
}

// credentials completes a login, the keys of which stand at path: both halves
// of it or none, and the password from one place.
func (l *loader) credentials(path, user string, password *Secret, file string) {
	name, word, from := path+".username", path+".password", path+".password_file"
	if file != "" {
		if *password != "" {
			l.problem(l.at(from), from, "stands beside a password; keep one of them")
			return
		}
		text, err := readSecret(file)
		if err != nil {
			l.problem(l.at(from), from, "%s", err)
		}
		*password = Secret(text)
	}
	if l.failed(name) || l.failed(word) || l.failed(from) {
		return
	}
	switch {
	case user != "" && *password == "":
		l.problem(l.at(name), name, "needs a password or password_file")
	case user == "" && *password != "":
		at := word
		if file != "" {
			at = from
		}
		l.problem(l.at(at), at, "needs a username")
	}
}

// refuse reports what is asked for and not there yet.
func (l *loader) refuse(notYet []gap) {
	const text = "%s is not supported by this version yet"
	for _, g := range notYet {
		if g.asked(l.config, nil) {
			l.problem(l.at(g.path), g.path, text, g.path)
		}
		for _, e := range l.entries {
			if g.asked(l.config, &e.Registry) {
				path := join(e.path, g.path)
				l.problem(l.at(path), path, text, g.path)
			}
		}
	}
}
