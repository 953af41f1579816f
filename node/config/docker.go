package config

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// identityUser is what stands in the place of a user name beside an identity token.
const identityUser = "<token>"

// A DockerLogin is what a docker config.json says of the login at a registry. If there is a
// Helper, it is asked first.
type DockerLogin struct {
	Username string // "<token>": Password is an identity token; "" if there is only a Helper
	Password Secret
	Helper   string // the program that knows the login, "" for none
	Server   string // what the Helper is asked for
}

// A dockerConfig is what is used of a docker config.json.
type dockerConfig struct {
	Auths map[string]struct {
		Auth, Username, Password, IdentityToken, RegistryToken string
	}
	CredsStore  string
	CredHelpers map[string]string
}

// helperName is what may follow docker-credential- in the name of a program.
var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// ReadDockerLogin reads the login of a registry, by its canonical host, from a docker
// config.json. As docker does, it goes by credHelpers before credsStore before auths. Errors
// name the file and quote nothing of it.
func ReadDockerLogin(file, registry string) (d DockerLogin, err error) {
	text, err := readSmall(file)
	if err != nil {
		return d, err
	}
	var c dockerConfig
	if json.Unmarshal(text, &c) != nil {
		return d, fmt.Errorf("%q is not a docker config.json", file) // without the cause, which may quote it
	}
	names := dockerNames(registry)
	helper := ""
	if key, ok := dockerKey(c.CredHelpers, names); ok {
		helper, d.Server = c.CredHelpers[key], key
	} else if c.CredsStore != "" {
		helper, d.Server = c.CredsStore, names[0]
	}
	if helper != "" && !helperName.MatchString(helper) {
		return d, fmt.Errorf("%q names a credential helper for %s that cannot be the name of a program", file, registry)
	}
	if helper != "" {
		d.Helper = "docker-credential-" + helper
	}
	if err := c.inline(&d, names); err != "" {
		return d, fmt.Errorf("%q: the login for %s %s", file, registry, err)
	}
	if d.Helper == "" && d.Username == "" {
		return d, fmt.Errorf("%q holds no login for %s, and names no credential helper for it", file, registry)
	}
	return d, nil
}

// inline takes the login that is in the file itself, if there is one, and returns what is
// wrong with it. Beside a credsStore docker writes empty ones.
func (c dockerConfig) inline(d *DockerLogin, names []string) (problem string) {
	key, ok := dockerKey(c.Auths, names)
	if !ok {
		return ""
	}
	one := c.Auths[key]
	user, password := one.Username, one.Password
	if one.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(one.Auth)
		if err != nil {
			return "is not base64"
		}
		user, password, _ = strings.Cut(string(text), ":")
		password = strings.Trim(password, "\x00")
	}
	switch {
	case one.IdentityToken != "":
		d.Username, d.Password = identityUser, Secret(one.IdentityToken)
	case user != "" && password != "":
		d.Username, d.Password = user, Secret(password)
	case user+password != "":
		return "is half a login"
	case one.RegistryToken != "":
		return "is a registrytoken, which is not used; log in again with a user and a password"
	}
	return ""
}

// dockerNames returns what docker calls a registry, the name that it writes first.
func dockerNames(registry string) []string {
	if registry == DockerHub {
		return []string{"https://index.docker.io/v1/", "index.docker.io", "docker.io", DockerHub}
	}
	return []string{registry}
}

// dockerKey returns the key of m that is one of the names, as it stands or as an URL of it.
func dockerKey[V any](m map[string]V, names []string) (string, bool) {
	for _, name := range names {
		if _, ok := m[name]; ok {
			return name, true
		}
	}
	var found []string
	for key := range m {
		if slices.Contains(names, hostOfKey(key)) {
			found = append(found, key)
		}
	}
	if len(found) == 0 {
		return "", false
	}
	return slices.MinFunc(found, strings.Compare), true
}

// hostOfKey returns the host in a key such as https://ghcr.io/v2/, "" if the key means only
// some repositories of a host.
func hostOfKey(key string) string {
	key = strings.ToLower(key)
	_, after, ok := strings.Cut(key, "://")
	if !ok {
		after = key
	}
	host, path, _ := strings.Cut(after, "/")
	if p := strings.Trim(path, "/"); !slices.Contains([]string{"", "v1", "v2"}, p) {
		return ""
	}
	return cmp.Or(host, key)
}
