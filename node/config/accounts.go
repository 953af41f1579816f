package config

import "slices"

// maxAccounts is how many logins a registry may have beside auth.
const maxAccounts = 16

// An Account is one login at a registry.
type Account struct {
	Username     string
	Password     Secret
	PasswordFile string // that Password was read from, "" for none
	Key          string // where it is set, below the registry: "auth" or "accounts[0]"
}

// Logins returns the logins at the registry: that of `auth` first, then its Accounts. There
// are none if it is asked without a login.
func (r Registry) Logins() []Account {
	if r.Username == "" && r.Password == "" {
		return r.Accounts
	}
	return append([]Account{{r.Username, r.Password, r.PasswordFile, "auth"}}, r.Accounts...)
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
		k.credentials(path, a.Username, &a.Password, a.PasswordFile)
		same := func(other Account) bool { return other.Username == a.Username }
		switch earlier := e.Accounts[:i]; {
		case k.failed(path), k.failed(path + ".username"), k.failed(path + ".password"), k.failed(path + ".password_file"):
		case a.Username == "":
			k.problem(k.at(path), path, "has no username; set username and password, or remove it")
		case e.Username == a.Username:
			k.problem(k.at(path), path, "has the username of auth; keep one of them")
		case slices.ContainsFunc(earlier, same):
			k.problem(k.at(path), path, "has the username of %s; keep one of them", earlier[slices.IndexFunc(earlier, same)].Key)
		}
	}
}
