package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// A doubter finds what is valid and most likely not meant, where that takes more than
// the value itself. What it finds never keeps a node from starting.
type doubter struct {
	*report
	config  *Config
	entries []entry
	environ map[string]string
}

// doubt looks at the whole config. disk is nil if disks are not to be looked at.
func (d *doubter) doubt(diskOf func(dir string) (disk, error)) {
	d.networks()
	d.logins()
	d.seeds()
	d.mirrors()
	d.admins()
	d.access()
	d.acme()
	if diskOf != nil {
		d.disks(diskOf)
	}
}

// networks warns of lists that hold everybody.
func (d *doubter) networks() {
	for _, list := range []struct {
		path     string
		prefixes []netip.Prefix
		means    string
	}{
		{"trusted_proxies", d.config.TrustedProxies, "can forge its address by X-Forwarded-For; list only your load balancers"},
		{"auth.anonymous_from", d.config.Auth.AnonymousFrom, "may pull without a login; list only networks of your own"},
		{"allow_addresses", d.config.AllowAddresses, "may be what a registry that nobody configured leads to; list only the networks that are needed"},
	} {
		for _, wide := range public(list.prefixes) {
			d.warn(d.at(list.path+"[0]", list.path), list.path, "holds %s: any client there %s", wide, list.means)
		}
	}
}

// public returns the networks that prefixes add up to, as far as they are so wide that
// they hold addresses of strangers.
func public(prefixes []netip.Prefix) (wide []netip.Prefix) {
	for _, p := range joined(prefixes) {
		least := 8 // 10.0.0.0/8 is the widest private network
		if p.Addr().Is6() {
			least = 7 // fc00::/7
		}
		if p.Bits() < least {
			wide = append(wide, p)
		}
	}
	return wide
}

// joined returns prefixes with the two halves of a network as one.
func joined(prefixes []netip.Prefix) []netip.Prefix {
	all := map[netip.Prefix]bool{}
	for _, p := range prefixes {
		all[p.Masked()] = true
	}
	for bits := 128; bits > 0; bits-- {
		for p := range all {
			if p.Bits() != bits {
				continue
			}
			whole := netip.PrefixFrom(p.Addr(), bits-1).Masked()
			if all[otherHalf(whole, p)] {
				all[whole] = true
			}
		}
	}
	var out []netip.Prefix
	for p := range all {
		if !slices.ContainsFunc(prefixesAbove(p), func(q netip.Prefix) bool { return all[q] }) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return out
}

// otherHalf returns the half of whole that half is not.
func otherHalf(whole, half netip.Prefix) netip.Prefix {
	if half.Addr() != whole.Addr() {
		return netip.PrefixFrom(whole.Addr(), half.Bits())
	}
	b := half.Addr().AsSlice()
	bit := half.Bits() - 1
	b[bit/8] |= 1 << (7 - bit%8)
	a, _ := netip.AddrFromSlice(b) // of the same length
	return netip.PrefixFrom(a, half.Bits())
}

// prefixesAbove returns the networks that contain p.
func prefixesAbove(p netip.Prefix) (all []netip.Prefix) {
	for bits := range p.Bits() {
		all = append(all, netip.PrefixFrom(p.Addr(), bits).Masked())
	}
	return all
}

// logins warns of user names, passwords and secrets that nobody can have meant.
func (d *doubter) logins() {
	d.login("auth", d.config.Auth.Username, d.config.Auth.Password)
	d.proxy("defaults.upstream_proxy", d.config.Defaults.UpstreamProxy)
	for _, e := range d.entries {
		for _, a := range e.Logins() {
			d.login(e.path+"."+a.Key, a.Username, a.Password)
			d.program(e.path+"."+a.Key, e.Host, a)
		}
		if d.isSet(e.path + ".upstream_proxy") {
			d.proxy(e.path+".upstream_proxy", e.UpstreamProxy)
		}
	}
	if a := d.config.Archive; a != nil {
		d.secret(d.at("archive.secret_key", "archive.secret_key_file"), "archive.secret_key", a.SecretKey.Reveal(), "archive.secret_key_file")
	}
	if d.config.Cluster == nil {
		return
	}
	const secret = "cluster.secret"
	for i, s := range d.config.Cluster.Secrets {
		path := secret
		if d.isSet("cluster.secrets") {
			path = index("cluster.secrets", i)
		}
		at := d.at(path, secret, "cluster.secret_file", "cluster.secrets")
		d.secret(at, path, s.Reveal(), "cluster.secret_file")
		if !d.suspect(s.Reveal()) && guessable(s.Reveal()) {
			d.warn(at, path, "the secret is easy to guess: whoever has it can join the cluster; make one with openssl rand -hex 32")
		}
	}
}

// login warns of a login at path.
func (d *doubter) login(path, user string, password Secret) {
	if d.suspect(user) {
		d.warn(d.at(path+".username"), path+".username", "the value looks like a variable that was not replaced, and is used as it stands: only ${NAME} is replaced, by the environment")
	}
	d.secret(d.at(path+".password", path+".password_file"), path+".password", password.Reveal(), path+".password_file")
}

// program warns of a login's command, or credential helper, that this machine does not have.
func (d *doubter) program(path, registry string, a Account) {
	name, key := "", path+".exec"
	if len(a.Exec) > 0 {
		name = a.Exec[0]
	} else if a.DockerConfig != "" {
		found, err := ReadDockerLogin(a.DockerConfig, registry)
		if err != nil {
			return // checked before
		}
		name, key = found.Helper, path+".docker_config"
	}
	if name == "" {
		return
	}
	if _, err := exec.LookPath(name); err != nil {
		if e, ok := errors.AsType[*exec.Error](err); ok {
			err = e.Err
		}
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err
		}
		d.warn(d.at(key), key, "the program %q cannot be run here: %s", name, err)
	}
}

// proxy warns of the login in a proxy's URL.
func (d *doubter) proxy(path string, u *url.URL) {
	if u == nil || u.User == nil {
		return
	}
	password, _ := u.User.Password()
	if d.suspect(u.User.Username()) || d.suspect(password) {
		d.warn(d.at(path), path, "the login in the URL looks like a variable that was not replaced, and is used as it stands: only ${NAME} is replaced, by the environment")
	}
}

// secret warns of a secret at path. file is the key that names a file in its place.
func (d *doubter) secret(at place, path, value, file string) {
	switch {
	case value == "":
	case d.suspect(value):
		d.warn(at, path, "the value looks like a variable or a template that was not replaced, and is used as it stands: only ${NAME} is replaced, by the environment; or set %s", file)
	case namesFile(value):
		d.warn(at, path, "the value looks like the name of a file, and is used as it stands; set %s to read the file", file)
	case exemplary(value):
		d.warn(at, path, "the value looks like one from an example, which anybody can guess; set one of your own, or %s", file)
	}
}

// template matches values that something was to replace: $X ${X} $(X) $env:X %X% {{x}}
// <x> @X@ __X__ #{x}# ((x)) ENC[…].
var template = regexp.MustCompile(`^(\$\{?[A-Za-z_][A-Za-z0-9_]*\}?|\$\(.*\)|\$(?i:env):\w+|%[A-Za-z_][A-Za-z0-9_]*%|<[^<>]+>|@+[A-Z][A-Z0-9_]*@+|__[A-Z][A-Z0-9_]*__|#\{.*\}#?|\(\(.*\)\)|ENC\[.*\])$|\{\{.*\}\}|\$\{[A-Za-z_]\w*([:?+-].*)?\}`)

// named matches references to variables inside a value.
var named = regexp.MustCompile(`\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?|%([A-Za-z_][A-Za-z0-9_]*)%`)

// suspect reports whether the value looks like one that a shell, compose or a chart was
// to replace: as a whole, or because it names a variable that there is.
func (d *doubter) suspect(value string) bool {
	if template.MatchString(strings.TrimSpace(value)) {
		return true
	}
	for _, m := range named.FindAllStringSubmatch(value, -1) {
		if _, there := d.environ[m[1]+m[2]]; there {
			return true
		}
	}
	return false
}

// namesFile reports whether the value is the path of a file.
func namesFile(value string) bool {
	if strings.HasPrefix(value, "file:") || strings.HasPrefix(value, "/run/secrets/") || strings.HasPrefix(value, "/var/run/secrets/") {
		return true
	}
	if !strings.HasPrefix(value, "/") && !strings.HasPrefix(value, "./") {
		return false
	}
	info, err := os.Stat(value)
	return err == nil && info.Mode().IsRegular()
}

// examples are what documents write for a secret, without all but letters and digits.
var examples = []string{
	"", "password", "passwd", "pass", "secret", "changeme", "topsecret", "mysecret", "mypassword", "yourpassword", "yoursecret",
	"yourtoken", "token", "xxx", "xxxx", "xxxxx", "xxxxxx", "xxxxxxxx", "todo", "tbd", "none", "null", "admin", "hunter2", "test", "s3cr3t", "p4ssw0rd", "passw0rd",
}

// exemplary reports whether the value comes from an example.
func exemplary(value string) bool {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(value))
	if plain == "" && strings.Trim(value, ".…*-_ <>") != "" {
		return false // a password of other characters
	}
	return slices.Contains(examples, plain) || slices.ContainsFunc([]string{"changeme", "changethis", "replaceme", "placeholder", "opensslrand", "yoursecret", "yourpassword"}, func(s string) bool { return strings.Contains(plain, s) })
}

// guessable reports whether a secret has so little in it that it can be guessed: few
// different characters, or one after the other as on the keyboard or in the alphabet.
func guessable(secret string) bool {
	different := map[rune]bool{}
	runs, last := 0, rune(-1)
	for _, r := range secret {
		different[r] = true
		if r == last || r == last+1 || r == last-1 {
			runs++
		}
		last = r
	}
	return len(different) < 6 || 4*runs >= 3*(len(secret)-1)
}

// seeds warns of seeds at a port where no gossip is.
func (d *doubter) seeds() {
	c := d.config.Cluster
	if c == nil {
		return
	}
	_, gossip, _ := cutPort(c.BindAddr)
	_, peers, _ := cutPort(c.PeerAddr)
	for i, seed := range c.Seeds {
		_, port, _ := cutPort(seed)
		path, what := index("cluster.seeds", i), ""
		switch {
		case port == gossip:
		case port == peers:
			what = "for other nodes' requests (cluster.peer_addr)"
		case port == fmt.Sprint(d.config.Port):
			what = "for clients"
		}
		if what != "" {
			d.warn(d.at(path, "cluster.seeds"), path, "%q has the port that this node has %s; seeds have the gossip port, here %s (cluster.bind_addr)", seed, what, gossip)
		}
	}
}
