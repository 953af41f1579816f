package config

import "slices"

// maxAccounts is how many logins a registry may have beside auth.
const maxAccounts = 16

// An Account is one login at a registry.
type Account struct {
	Username     string
	Password     Secret
	PasswordFile string   // that Password was read from, "" for none
	Exec         []string // the command that prints the login, in place of the above; nil for none
	DockerConfig string   // the docker config.json that knows it, in place of the above; "" for none
	Key          string   // where it is set, below the registry: "auth" or "accounts[0]"
}

// Elsewhere reports whether the login is got while the node runs: by a command or from a
// docker config.json.
func (a Account) Elsewhere() bool { return len(a.Exec) > 0 || a.DockerConfig != "" }

// Logins returns the logins at the registry: that of `auth` first, then its Accounts. There
// are none if it is asked without a login.
func (r Registry) Logins() []Account {
	first := r.auth()
	if first.Username == "" && first.Password == "" && !first.Elsewhere() {
		return r.Accounts
	}
	return append([]Account{first}, r.Accounts...)
}

// auth returns what is set below `auth`.
func (r Registry) auth() Account {
	return Account{r.Username, r.Password, r.PasswordFile, r.Exec, r.DockerConfig, "auth"}
}

// setAccounts reads a list of logins with accountKeys.
func setAccounts(r *reader, of *Registry, n *node, path string) {
	if !r.is(n, list, path) {
		return
	}
	if len(n.items) > maxAccounts {
		r.problem(n.items[maxAccounts].at, path, "has more than %d logins; remove some", maxAccounts)
		return
	}
	for i, item := range n.items {
		a := Account{Key: index("accounts", i)}
		at := index(path, i)
		r.places[at] = item.at
		fill(r, &a, accountKeys, item, at, "")
		of.Accounts = append(of.Accounts, a)
	}
}

// checkAccounts makes sure that each further login of a registry is whole, and another one.
func (k *checker) checkAccounts(e *entry) {
	for i := range e.Accounts {
		a := &e.Accounts[i]
		path := index(e.path+".accounts", i)
		k.checkLogin(e.Host, path, a)
		same := func(other Account) bool { return other.Username == a.Username }
		switch earlier := e.Accounts[:i]; {
		case slices.ContainsFunc([]string{"", ".username", ".password", ".password_file", ".exec", ".docker_config"}, func(key string) bool { return k.failed(path + key) }):
		case a.Elsewhere(): // its user is not known yet
		case a.Username == "":
			k.problem(k.at(path), path, "has no username; set username and password, or exec, or docker_config, or remove it")
		case e.Username == a.Username:
			k.problem(k.at(path), path, "has the username of auth; keep one of them")
		case slices.ContainsFunc(earlier, same):
			k.problem(k.at(path), path, "has the username of %s; keep one of them", earlier[slices.IndexFunc(earlier, same)].Key)
		}
	}
}

// checkLogin completes a registry's login at path. It must come from one place.
func (k *checker) checkLogin(registry, path string, a *Account) {
	if !a.Elsewhere() {
		k.credentials(path, a.Username, &a.Password, a.PasswordFile)
		return
	}
	first := ""
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"exec", len(a.Exec) > 0},
		{"docker_config", a.DockerConfig != ""},
		{"username", a.Username != ""},
		{"password", a.Password != ""},
		{"password_file", a.PasswordFile != ""},
	} {
		at := path + "." + key.name
		switch {
		case key.set && first != "":
			k.problem(k.at(at), at, "is set as well as %s, which gives the whole login; keep one of them", first)
			return
		case key.set:
			first = key.name
		}
	}
	if len(a.Exec) > 0 && a.Exec[0] == "" {
		k.problem(k.at(path+".exec"), path+".exec", "names no command; its first item is the program to run")
	}
	if a.DockerConfig != "" && !k.finding {
		if _, err := ReadDockerLogin(a.DockerConfig, registry); err != nil {
			k.problem(k.at(path+".docker_config"), path+".docker_config", "%s", err)
		}
	}
}
