package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Names of users in access rules that stand for more than one login.
const (
	Everybody = "*"         // with a login or without
	Anonymous = "anonymous" // all without a login
)

// An AccessRule says who may, or may not, pull from some repositories. Either Allow or Deny
// is set.
type AccessRule struct {
	Users []string // logins, Everybody, Anonymous; none: everybody
	Allow []string // patterns, in lower case, as parseRepositories has them
	Deny  []string // likewise
	Place string   // where it is set: file:line, or the environment's variable
}

// Patterns returns the patterns, whatever they are for.
func (a AccessRule) Patterns() []string { return slices.Concat(a.Allow, a.Deny) }

// For reports whether the rule is for a login, or with Anonymous for those without one.
func (a AccessRule) For(user string) bool {
	return a.ForAll() || slices.Contains(a.Users, user)
}

// ForAll reports whether the rule is for everybody.
func (a AccessRule) ForAll() bool { return len(a.Users) == 0 || slices.Contains(a.Users, Everybody) }

// setAccess reads a list of rules with accessKeys.
func setAccess(r *reader, of *Config, n *node, path string) {
	if !r.is(n, list, path) {
		return
	}
	for i, item := range n.items {
		a := AccessRule{Place: r.placeName(item.at)}
		at := index(path, i)
		r.places[at] = item.at
		fill(r, &a, accessKeys, item, at, "")
		failed := slices.ContainsFunc([]string{".users", ".allow", ".deny"}, func(key string) bool { return r.failed(at + key) })
		switch {
		case failed, item.shape != mapping:
		case r.isSet(at+".users") && len(a.Users) == 0:
			r.problem(item.at, at, "has an empty list of users, so it is for nobody; name some, or remove users: then it is for everybody")
		case len(a.Allow) > 0 && len(a.Deny) > 0:
			r.problem(item.at, at, "has both allow and deny; write two rules, the one that is to win first")
		case len(a.Allow) == 0 && len(a.Deny) == 0:
			r.problem(item.at, at, "has neither allow nor deny; add one, such as deny: [\"docker.io/library/**\"]")
		}
		of.Access = append(of.Access, a)
	}
}

// placeName names a place as a refusal does.
func (r *report) placeName(at place) string {
	if at.variable != "" {
		return "environment " + at.variable
	}
	return fmt.Sprintf("%s:%d", r.file, at.line)
}

var (
	patternHost = regexp.MustCompile(`^(\[[0-9a-f:]+\]|[a-z0-9*._-]+)(:[0-9*]+)?$`)
	patternPart = regexp.MustCompile(`^[a-z0-9*._-]+$`)
)

// parseRepositories parses a pattern over registry/repository. A part * stands for one part,
// a part ** for any number of them, and a * within a part for any characters of it.
func parseRepositories(s string) (string, error) {
	parts := slices.CompactFunc(strings.Split(strings.ToLower(s), "/"), func(a, b string) bool { return a == "**" && a == b })
	switch {
	case strings.Contains(s, "://"):
		return "", errors.New("is a URL; write registry/repository, such as docker.io/library/**")
	case strings.ContainsAny(s, "@"):
		return "", errors.New("names a digest; rules are for whole repositories")
	}
	for i, part := range parts {
		switch {
		case part == "**":
		case part == "":
			return "", errors.New("has an empty part; write registry/repository, such as docker.io/library/**")
		case strings.Contains(part, "**"):
			return "", errors.New("has ** within a part; ** is a part of its own, such as docker.io/**")
		case i == 0 && patternHost.MatchString(part):
		case i > 0 && strings.Contains(part, ":"):
			return "", errors.New("names a tag; rules are for whole repositories: leave out what follows the colon")
		case i == 0 || !patternPart.MatchString(part):
			return "", fmt.Errorf("has the part %q, which no repository has", part)
		}
	}
	if len(parts) == 1 && parts[0] != "**" {
		return "", fmt.Errorf("is one part only, and matches nothing: a name is registry/repository; write %s/**", parts[0])
	}
	return strings.Join(parts, "/"), nil
}

// An accessChecker applies the rules about access rules.
type accessChecker struct {
	*report
	config  *Config
	entries []entry
}

// check gives the registries in patterns their canonical names. A pattern that begins
// with no registry is an error: it would never match, and a refusal that never matches lets
// everybody through.
func (k *accessChecker) check() {
	for i := range k.config.Access {
		at := index("access", i)
		k.settlePatterns(at+".allow", k.config.Access[i].Allow)
		k.settlePatterns(at+".deny", k.config.Access[i].Deny)
	}
}

// settlePatterns is check for the patterns at path.
func (k *accessChecker) settlePatterns(path string, patterns []string) {
	for i, pattern := range patterns {
		host, rest, several := strings.Cut(pattern, "/")
		if !several {
			continue // all repositories
		}
		registry, is := k.registryOf(host)
		if !is {
			k.problem(k.at(index(path, i), path), index(path, i), "%q begins with no registry (did you mean %s/%s?)", pattern, publicName(k.config.DefaultRegistry), pattern)
		}
		patterns[i] = registry + "/" + rest
	}
}

// portPart matches a registry's host with its port as it stands in a path.
var portPart = regexp.MustCompile(`^([a-z0-9.-]+)_([0-9]{1,5})$`)

// registryOf returns the registry that the first part of a pattern stands for, or the part
// itself if it has a *.
func (k *accessChecker) registryOf(part string) (registry string, ok bool) {
	for _, e := range k.entries {
		if e.Host == Canonical(part) || slices.Contains(e.Alias, part) || strings.ReplaceAll(e.Host, ":", "_") == part {
			return e.Host, true
		}
	}
	if m := portPart.FindStringSubmatch(part); m != nil && (strings.Contains(m[1], ".") || m[1] == "localhost") {
		return m[1] + ":" + m[2], true
	}
	return Canonical(part), strings.ContainsAny(part, "*.:") || part == "localhost"
}

// parseRuleUser parses a user of a rule.
func parseRuleUser(s string) (string, error) {
	if s == "" {
		return "", errors.New("is not a user; write a login, anonymous, or \"*\" for everybody")
	}
	return parseUser(s)
}
