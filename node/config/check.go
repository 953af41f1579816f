package config

import (
	"crypto/x509"
	"slices"
	"strings"
)

// check applies the rules that involve several keys, and completes the config.
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

// checkAuth checks the logins of the proxy itself.
func (l *loader) checkAuth(a *Auth) {
	l.credentials("auth", a.Username, &a.Password, a.passwordFile)
	const users, anonymous = "auth.htpasswd_file", "auth.anonymous_from"
	if a.HtpasswdFile != "" && !l.finding {
		if _, err := ReadUsers(a.HtpasswdFile); err != nil {
			l.problem(l.at(users), users, "%s", err)
		}
	}
	if len(a.AnonymousFrom) > 0 && !a.Asked() && !l.failed("auth.username") && !l.failed(users) {
		l.problem(l.at(anonymous), anonymous, "lets clients pull without a login, but no login is configured; set auth.username or auth.htpasswd_file, or remove this")
	}
}

// checkTLS makes sure that the clients' port has both a certificate and its key,
// or neither.
func (l *loader) checkTLS(t TLS) {
	const cert, key = "tls.cert_file", "tls.key_file"
	if l.failed(cert) || l.failed(key) {
		return
	}
	switch {
	case t.CertFile == "" && t.KeyFile == "":
	case t.KeyFile == "":
		l.problem(l.at(cert), cert, "has no key; set key_file too")
	case t.CertFile == "":
		l.problem(l.at(key), key, "has no certificate; set cert_file too")
	case !l.finding:
		if _, err := ReadCertificate(t); err != nil {
			l.problem(l.at(cert), cert, "%s", err)
		}
	}
}

// checkRegistries checks each registry's login and certificates, and settles
// whether it is private.
func (l *loader) checkRegistries() {
	for i := range l.entries {
		e := &l.entries[i]
		l.credentials(e.path+".auth", e.Username, &e.Password, e.passwordFile)
		e.Private = e.Private || e.Username != ""
		e.Public = l.isSet(e.path+".private") && !e.Private
		l.checkAuthorities(e.path+".ca_file", e.CAFile)
	}
	l.checkAliases()
}

// checkAuthorities makes sure that the file, if there is one, holds certificates.
func (l *loader) checkAuthorities(path, file string) {
	if file == "" {
		return
	}
	pem, err := readSmall(file)
	if err != nil {
		l.problem(l.at(path), path, "%s", err)
	} else if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		l.problem(l.at(path), path, "%q holds no PEM certificate", file)
	}
}

// checkProxyVariables checks the proxies that the environment sets for registries
// without one in the config. The HTTP client would ignore a value that it cannot
// read, and connect directly.
func (l *loader) checkProxyVariables() {
	unset := func(e entry) bool { return e.UpstreamProxy == nil }
	if l.config.Defaults.UpstreamProxy != nil && !slices.ContainsFunc(l.entries, unset) {
		return
	}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		value := l.environ[name]
		if value == "" {
			continue
		}
		if !strings.Contains(value, "://") { // the scheme is optional here
			value = "http://" + value
		}
		if _, err := parseProxy(value); err != nil {
			l.problem(place{variable: name}, "", "the value %s", err)
		}
	}
}

// checkAliases makes sure that the first part of a path means one registry only.
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
				l.problem(l.at(path, e.path+".alias"), path, "%q already means %s; choose another alias", alias, other)
			}
			meaning[alias] = e.Host
		}
	}
}

// credentials completes the login at path. It needs a user name and a password,
// or neither, and the password must come from one place.
func (l *loader) credentials(path, user string, password *Secret, file string) {
	name, inline, from := path+".username", path+".password", path+".password_file"
	if file != "" {
		if *password != "" {
			l.problem(l.at(from), from, "is set as well as password; keep one of them")
			return
		}
		text, err := readSecret(file)
		if err != nil {
			l.problem(l.at(from), from, "%s", err)
		}
		*password = Secret(text)
	}
	if l.failed(name) || l.failed(inline) || l.failed(from) {
		return
	}
	switch {
	case user != "" && *password == "":
		l.problem(l.at(name), name, "has no password; set password or password_file too")
	case user == "" && *password != "":
		at := inline
		if file != "" {
			at = from
		}
		l.problem(l.at(at), at, "has no username; set username too")
	}
}

// refuse reports the registries' keys that this version does not support.
func (l *loader) refuse(gaps []gap) {
	for _, g := range gaps {
		for _, e := range l.entries {
			if g.asked(&e.Registry) {
				path := join(e.path, g.path)
				l.problem(l.at(path), path, "is not supported by this version; remove it")
			}
		}
	}
}
