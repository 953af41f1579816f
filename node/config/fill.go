package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A reader puts values into the config by the tables of keys. It reports those that
// it can't take.
type reader struct {
	*report
	environ    map[string]string
	keys       []string // paths of every key, to search for the nearest one
	registries *node    // read last, once the defaults that they start from are known
}

// newReader returns a reader that replaces ${NAME} by what the environment has.
func newReader(report *report, environ map[string]string) *reader {
	r := &reader{report: report, environ: environ}
	for _, k := range Keys() {
		r.keys = append(r.keys, k.Path)
	}
	return r
}

// preset sets the keys' defaults in t.
func preset[T any](r *reader, t *T, keys []key[T]) {
	for _, k := range keys {
		if k.preset != "" && k.shape == scalar {
			k.set(r, t, &node{shape: scalar, text: k.preset, literal: true}, k.path)
		}
	}
}

// fill sets in t the keys that n holds. The path of n is root.section; the paths
// in keys include section but not root.
func fill[T any](r *reader, t *T, keys []key[T], n *node, root, section string) {
	if !r.is(n, mapping, join(root, section)) {
		return
	}
	for _, p := range n.pairs {
		rel := join(section, p.key)
		full := join(root, rel)
		i := slices.IndexFunc(keys, func(k key[T]) bool { return k.path == rel })
		switch {
		case strings.Contains(p.key, "."): // `auth.username: x` is not how to write it
			r.unknown(p.at, full, p.key, nil)
		case i >= 0 && keys[i].shape == mapping:
			if !r.isSet(full) {
				r.places[full] = p.at
			}
			keys[i].set(r, t, p.value, full)
		case i >= 0 && p.value.shape != nothing:
			r.places[full] = p.value.at
			keys[i].set(r, t, p.value, full)
		case i >= 0: // null counts as not set
		case slices.ContainsFunc(keys, func(k key[T]) bool { return strings.HasPrefix(k.path, rel+".") }):
			fill(r, t, keys, p.value, root, rel)
		default:
			r.unknown(p.at, full, p.key, levels(keys, section))
		}
	}
}

// levels returns the names of the keys and sections directly below section.
func levels[T any](keys []key[T], section string) []string {
	var names []string
	for _, k := range keys {
		rest, below := strings.CutPrefix(k.path, section)
		if section != "" && below {
			rest, below = strings.CutPrefix(rest, ".")
		}
		if below {
			name, _, _ := strings.Cut(rest, ".")
			names = append(names, name)
		}
	}
	return names
}

// unknown reports a key that does not exist, with the nearest one that does.
func (r *reader) unknown(at place, path, name string, here []string) {
	hint := ""
	if near := nearest(name, here, r.keys); near != "" {
		hint = " (did you mean " + near + "?)"
	}
	r.problem(at, path, "unknown key%s", hint)
}

// is reports whether n has the shape, and records a problem if it has another. A
// null has no shape and is not a problem.
func (r *reader) is(n *node, want shape, path string) bool {
	if n.shape != want && n.shape != nothing {
		r.problem(n.at, path, "must be %s, not %s", want, n.shape)
	}
	return n.shape == want
}

// read returns the value of the scalar n, parsed as k. If that fails it records a
// problem.
func read[V any](r *reader, n *node, path string, k kind[V]) (v V, ok bool) {
	if n.shape == nothing {
		r.problem(n.at, path, "has no value; give it one or remove it")
		return v, false
	}
	if !r.is(n, scalar, path) {
		return v, false
	}
	text, ok := r.expand(n, path)
	if !ok {
		return v, false
	}
	v, err := k.parse(text)
	if err != nil {
		r.problem(n.at, path, "%s %s", shown(n, k.hidden), err)
		return v, false
	}
	if k.doubt != nil {
		if doubt := k.doubt(text); doubt != "" {
			r.warn(n.at, path, "%s %s", shown(n, k.hidden), doubt)
		}
	}
	return v, true
}

var reference = regexp.MustCompile(`\$\{([^}]*)\}`)

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces each ${NAME} in n's text. It leaves other dollar signs alone,
// because Harbor's robot accounts have them in their names, and does not expand
// the replacement again.
func (r *reader) expand(n *node, path string) (string, bool) {
	if n.literal {
		return n.text, true
	}
	ok := true
	text := reference.ReplaceAllStringFunc(n.text, func(ref string) string {
		name := ref[2 : len(ref)-1]
		value, set := r.environ[name]
		switch {
		case !variable.MatchString(name):
			r.problem(n.at, path, "%q is not a reference to a variable; only ${NAME} is replaced", ref)
			ok = false
		case !set:
			r.problem(n.at, path, "${%s} is not set in the environment", name)
			ok = false
		case value == "" && guards(path):
			r.problem(n.at, path, "${%s} is set but empty in the environment", name)
			ok = false
		}
		return value
	})
	return text, ok
}

// shown returns how an error names the value of n. It does not show the value of
// a ${NAME}, which may be a secret under any key.
func shown(n *node, hidden bool) string {
	const enough = 80
	text := n.text
	if len(text) > enough {
		text = text[:enough] + "…"
	}
	switch {
	case hidden, strings.Contains(text, "@"): // people put logins into URLs
		return "the value"
	case !n.literal && reference.MatchString(n.text):
		return fmt.Sprintf("the value of %q", text)
	default:
		return fmt.Sprintf("%q", text)
	}
}
