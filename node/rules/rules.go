// Package rules decides who may pull what: the access rules of the config.
//
// A rule is over registry/repository. [Rules.Refuse] goes through them in order; the first
// that matches decides, and what none matches is allowed. A registry is matched under each
// name that clients have for it (names.go). The node that a client asks judges the
// client. Between nodes the request says for whom it is, and the node that is asked judges
// by its own rules.
package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"oci-proxy/node/config"
	"oci-proxy/transfer/oci"
)

// Rules are the access rules in force. Its methods may be called from any goroutine.
type Rules struct{ now atomic.Pointer[book] }

// A book is the rules of one config.
type book struct {
	rules []rule
	names names
}

// A rule is one rule, ready to be matched.
type rule struct {
	config.AccessRule
	deny     bool
	patterns []*regexp.Regexp
}

// A Refusal says that a rule does not let a user pull from a repository.
type Refusal struct {
	User                 oci.User
	Registry, Repository string
	Place                string // of the rule: file:line
}

// Reason says in a sentence which rule refuses what to whom.
func (r *Refusal) Reason() string {
	return fmt.Sprintf("the access rule at %s does not let %s pull %s", r.Place, r.User, r.Repository)
}

// Error is the reason, with the registry.
func (r *Refusal) Error() string { return r.Registry + ": " + r.Reason() }

// New returns the rules of the config.
func New(cfg *config.Config) *Rules {
	r := &Rules{}
	r.Use(cfg)
	return r
}

// Use puts the rules of another config in force.
func (r *Rules) Use(cfg *config.Config) {
	b := &book{names: namesOf(cfg)}
	for _, a := range cfg.Access {
		one := rule{AccessRule: a, deny: len(a.Deny) > 0}
		for _, p := range a.Patterns() {
			one.patterns = append(one.patterns, compile(p))
		}
		b.rules = append(b.rules, one)
	}
	r.now.Store(b)
}

// Any reports whether there are rules at all.
func (r *Rules) Any() bool { return len(r.now.Load().rules) > 0 }

// Refuse returns a *Refusal if the rules do not let the user pull from ref's repository,
// else nil. Somebody unknown may be anybody: all rules that refuse something to anybody
// count, and of those that allow something only those for everybody. A node itself may pull
// everything: what it serves is judged again.
func (r *Rules) Refuse(u oci.User, ref oci.Ref) error {
	b := r.now.Load()
	if len(b.rules) == 0 || u == oci.Node {
		return nil
	}
	own, others := b.names.of(ref)
	for _, one := range b.rules {
		switch {
		case !one.isFor(u):
		case one.deny && one.matches(slices.Concat(own, others)):
			return &Refusal{User: u, Registry: ref.Registry, Repository: ref.Repository, Place: one.Place}
		case !one.deny && one.matches(own):
			return nil
		}
	}
	return nil
}

// isFor reports whether the rule is about the user.
func (r rule) isFor(u oci.User) bool {
	switch {
	case u == oci.Unknown:
		return r.deny || r.ForAll()
	case u == oci.Anonymous:
		return r.For(config.Anonymous)
	default:
		// A login of the name anonymous is no client without a login.
		return r.ForAll() || u.Name() != config.Anonymous && r.For(u.Name())
	}
}

// matches reports whether one of the patterns matches one of the names.
func (r rule) matches(names []string) bool {
	return slices.ContainsFunc(r.patterns, func(p *regexp.Regexp) bool { return slices.ContainsFunc(names, p.MatchString) })
}

// compile makes an expression of a pattern. Go's take time in proportion to the text
// whatever they are.
func compile(pattern string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString("^")
	parts := strings.Split(pattern, "/")
	for i, part := range parts {
		first, last := i == 0, i == len(parts)-1
		switch {
		case part == "**" && first && last:
			b.WriteString(".*")
		case part == "**" && last:
			b.WriteString("(?:/[^/]+)*")
		case part == "**":
			b.WriteString(ifElse(first, "(?:[^/]+/)*", "(?:/[^/]+)*"))
		default:
			if !first && !(i == 1 && parts[0] == "**") {
				b.WriteString("/")
			}
			b.WriteString(expression(part))
		}
	}
	b.WriteString("$")
	return regexp.MustCompile(b.String())
}

// expression is that of one part.
func expression(part string) string {
	if part == "*" {
		return "[^/]+"
	}
	return strings.ReplaceAll(regexp.QuoteMeta(part), `\*`, "[^/]*")
}

// ifElse is yes if is, else no.
func ifElse(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}
