package config

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// doubtRepositories doubts a pattern whose registry is most likely another one.
func doubtRepositories(s string) string {
	host, _, _ := strings.Cut(s, "/")
	return doubtRegistry(host)
}

// users returns the logins that the proxy knows, and false if that cannot be told.
func (d *doubter) users() (known []string, ok bool) {
	a := d.config.Auth
	if a.Username != "" {
		known = append(known, a.Username)
	}
	if a.HtpasswdFile != "" {
		all, err := ReadUsers(a.HtpasswdFile)
		if err != nil {
			return nil, false // reported already, or not looked at
		}
		known = slices.AppendSeq(known, maps.Keys(all))
	}
	slices.Sort(known)
	return known, true
}

// missing says why nobody has the login, "" if somebody has.
func missing(user string, known []string) string {
	if slices.Contains(known, user) {
		return ""
	}
	return fmt.Sprintf("%q is neither auth.username nor in auth.htpasswd_file, so nobody is%s", user, meant(user, known...))
}

// admins warns of admins that nobody can be.
func (d *doubter) admins() {
	known, ok := d.users()
	if !ok {
		return
	}
	for i, user := range d.config.Auth.Admins {
		path := index("auth.admins", i)
		if why := missing(user, known); why != "" {
			d.warn(d.at(path, "auth.admins"), path, "%s", why)
		}
	}
}

// access warns of rules that do nothing.
func (d *doubter) access() {
	known, ok := d.users()
	for i, rule := range d.config.Access {
		at := index("access", i)
		if ok {
			d.ruleUsers(at, rule, known)
		}
		if shadowed(rule, d.config.Access[:i]) {
			d.warn(d.at(at), at, "never decides: earlier rules match all that it matches; put it before them, or remove it")
		}
	}
}

// ruleUsers warns of users that nobody can be.
func (d *doubter) ruleUsers(at string, rule AccessRule, known []string) {
	auth := d.config.Auth
	for i, user := range rule.Users {
		path, why := index(at+".users", i), ""
		switch {
		case user == Everybody:
		case user != Anonymous && !auth.Asked():
			why = fmt.Sprintf("%q is nobody: no login is configured, so all clients are anonymous", user)
		case user == Anonymous && auth.Asked() && len(auth.AnonymousFrom) == 0:
			why = "nobody is anonymous: a login is asked for and auth.anonymous_from is empty"
		case user == Anonymous && slices.Contains(known, Anonymous):
			why = "means clients without a login, and there is a login of that name too"
		case user != Anonymous:
			why = missing(user, known)
		}
		if why != "" {
			d.warn(d.at(path, at+".users", at), path, "%s", why)
		}
	}
}

// shadowed reports whether earlier rules match all that the rule matches.
func shadowed(rule AccessRule, earlier []AccessRule) bool {
	users := rule.Users
	if rule.ForAll() {
		users = []string{Everybody}
	}
	for _, user := range users {
		for _, pattern := range rule.Patterns() {
			if !slices.ContainsFunc(earlier, func(e AccessRule) bool {
				return e.For(user) && slices.ContainsFunc(e.Patterns(), func(wide string) bool {
					return covers(strings.Split(wide, "/"), strings.Split(pattern, "/"))
				})
			}) {
				return false
			}
		}
	}
	return len(rule.Patterns()) > 0
}

// covers reports whether the pattern wide certainly matches all that narrow matches.
func covers(wide, narrow []string) bool {
	row := make([]bool, len(narrow)+1) // whether what was looked at of wide covers the first j parts of narrow
	row[0] = true
	for _, w := range wide {
		next := make([]bool, len(row))
		next[0] = w == "**" && row[0]
		for j, n := range narrow {
			if w == "**" {
				next[j+1] = row[j+1] || next[j]
			} else {
				next[j+1] = row[j] && coversPart(w, n)
			}
		}
		row = next
	}
	return row[len(narrow)]
}

// coversPart is covers for one part.
func coversPart(wide, narrow string) bool {
	switch {
	case narrow == "**":
		return false
	case wide == narrow, wide == "*":
		return true
	case strings.Contains(narrow, "*"):
		return false
	}
	same, err := path.Match(wide, narrow)
	return same && err == nil
}
