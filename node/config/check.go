package config

import (
	"crypto/x509"
	"slices"
	"strings"
)

// A checker applies the rules that involve several keys.
type checker struct {
	*report
	config  *Config
	entries []entry
	environ map[string]string
	finding bool // whether this is Find
}

// check applies the rules that involve several keys, and completes the config.
func (k *checker) check() {
	c := k.config
	k.checkAuth(&c.Auth)
	k.checkTLS(c.TLS)
	k.checkRegistries()
	k.checkProxyVariables()
	(&accessChecker{k.report, c, k.entries}).check()
	if c.Cluster != nil {
		(&clusterChecker{k.report, c, k.entries}).check(c.Cluster)
	}
	k.checkAuthorities("tls.acme.ca_file", c.TLS.ACME.CAFile)
	(&acmeChecker{k.report, c}).check(&c.TLS)
	if c.Archive != nil {
		k.checkArchive(c.Archive)
	}
	k.boundStores()
	for _, e := range k.entries {
		c.Registries = append(c.Registries, e.Registry)
	}
	slices.SortFunc(c.Registries, func(a, b Registry) int { return strings.Compare(a.Host, b.Host) })
}

// checkAuth checks the logins of the proxy itself.
func (k *checker) checkAuth(a *Auth) {
	k.credentials("auth", a.Username, &a.Password, a.passwordFile)
	if len(a.Admins) == 0 && a.Username != "" {
		a.Admins = []string{a.Username}
	}
	const users, anonymous = "auth.htpasswd_file", "auth.anonymous_from"
	if a.HtpasswdFile != "" && !k.finding {
		if _, err := ReadUsers(a.HtpasswdFile); err != nil {
			k.problem(k.at(users), users, "%s", err)
		}
	}
	if len(a.AnonymousFrom) > 0 && !a.Asked() && !k.failed("auth.username") && !k.failed(users) {
		k.problem(k.at(anonymous), anonymous, "lets clients pull without a login, but no login is configured; set auth.username or auth.htpasswd_file, or remove this")
	}
}

// checkTLS makes sure that the clients' port has both a certificate and its key,
// or neither.
func (k *checker) checkTLS(t TLS) {
	const cert, key = "tls.cert_file", "tls.key_file"
	if k.failed(cert) || k.failed(key) {
		return
	}
	switch {
	case t.CertFile == "" && t.KeyFile == "":
	case t.KeyFile == "":
		k.problem(k.at(cert), cert, "has no key; set key_file too")
	case t.CertFile == "":
		k.problem(k.at(key), key, "has no certificate; set cert_file too")
	case !k.finding:
		if _, err := ReadCertificate(t); err != nil {
			k.problem(k.at(cert), cert, "%s", err)
		}
	}
}

// checkRegistries checks each registry's login and certificates, and settles
// whether it is private.
func (k *checker) checkRegistries() {
	for i := range k.entries {
		e := &k.entries[i]
		first := e.auth()
		k.checkLogin(e.Host, e.path+".auth", &first)
		e.Password = first.Password
		k.checkAccounts(e)
		e.Private = e.Private || len(e.Logins()) > 0
		e.Public = k.isSet(e.path+".private") && !e.Private
		k.checkAuthorities(e.path+".ca_file", e.CAFile)
		k.fillTags(e)
	}
	k.checkAliases()
	k.checkMirrors()
}

// fillTags completes the rules for tags by what the registry says.
func (k *checker) fillTags(e *entry) {
	for i := range e.Tags {
		path := index(e.path+".tags", i)
		if !k.isSet(path + ".ttl") {
			e.Tags[i].TTL = e.TagTTL
		}
		if !k.isSet(path + ".stale_if_error") {
			e.Tags[i].StaleIfError = e.StaleIfError
		}
	}
}

// checkAuthorities makes sure that the file, if there is one, holds certificates.
func (k *checker) checkAuthorities(path, file string) {
	if file == "" {
		return
	}
	pem, err := readSmall(file)
	if err != nil {
		k.problem(k.at(path), path, "%s", err)
	} else if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		k.problem(k.at(path), path, "%q holds no PEM certificate", file)
	}
}

// checkProxyVariables checks the proxies that the environment sets for registries
// without one in the config. The HTTP client would ignore a value that it cannot
// read, and connect directly.
func (k *checker) checkProxyVariables() {
	unset := func(e entry) bool { return e.UpstreamProxy == nil }
	if k.config.Defaults.UpstreamProxy != nil && !slices.ContainsFunc(k.entries, unset) {
		return
	}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		value := k.environ[name]
		if value == "" {
			continue
		}
		if !strings.Contains(value, "://") { // the scheme is optional here
			value = "http://" + value
		}
		if _, err := parseProxy(value); err != nil {
			k.problem(place{variable: name}, "", "the value %s", err)
		}
	}
}

// checkAliases makes sure that the first part of a path means one registry only.
func (k *checker) checkAliases() {
	meaning := map[string]string{"library": "the official images of " + DockerHub}
	for _, e := range k.entries {
		meaning[e.Host] = e.Host
		meaning[strings.ReplaceAll(e.Host, ":", "_")] = e.Host
	}
	for _, e := range k.entries {
		for i, alias := range e.Alias {
			path := index(e.path+".alias", i)
			if other, taken := meaning[alias]; taken {
				k.problem(k.at(path, e.path+".alias"), path, "%q already means %s; choose another alias", alias, other)
			}
			meaning[alias] = e.Host
		}
	}
}

// credentials completes the login at path. It needs a user name and a password,
// or neither, and the password must come from one place.
func (k *checker) credentials(path, user string, password *Secret, file string) {
	name, inline, from := path+".username", path+".password", path+".password_file"
	if file != "" {
		if *password != "" {
			k.problem(k.at(from), from, "is set as well as password; keep one of them")
			return
		}
		text, err := readSecret(file)
		if err != nil {
			k.problem(k.at(from), from, "%s", err)
		}
		*password = Secret(text)
	}
	if k.failed(name) || k.failed(inline) || k.failed(from) {
		return
	}
	switch {
	case user != "" && *password == "":
		k.problem(k.at(name), name, "has no password; set password or password_file too")
	case user == "" && *password != "":
		at := inline
		if file != "" {
			at = from
		}
		k.problem(k.at(at), at, "has no username; set username too")
	}
}
