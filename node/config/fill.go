package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A loader gathers what was set, where it was set and what is wrong with it.
type loader struct {
	file       string
	environ    map[string]string
	config     *Config
	registries *node   // read last, once the defaults that they start from are known
	entries    []entry // of registries, in the file's order
	places     map[string]place
	keys       []string // paths of every key, to search for the nearest one
	problems   Problems
	finding    bool // whether this is Find, which skips the files that a node reads again
}

// An entry is a registry on its way into the config.
type entry struct {
	Registry
	path string
	at   place
}

// parse is Parse, with a choice of the keys to refuse.
func parse(file string, text []byte, environ []string, gaps []gap) (*Config, error) {
	return newLoader(file, environ).parse(text, gaps)
}

func newLoader(file string, environ []string) *loader {
	return &loader{file: file, environ: environment(environ), config: &Config{}, places: map[string]place{}}
}

// parse reads the file's text and the environment, and returns the config or
// everything that is wrong with it.
func (l *loader) parse(text []byte, gaps []gap) (*Config, error) {
	for _, k := range Keys() {
		l.keys = append(l.keys, k.Path)
	}
	preset(l, l.config, configKeys)
	preset(l, &l.config.Defaults, registryKeys)
	fill(l, l.config, configKeys, l.decode(text), "", "")
	l.fillFromEnvironment()
	l.fillRegistries()
	l.check()
	l.refuse(gaps)
	if len(l.problems) > 0 {
		l.problems.sort()
		return nil, l.problems
	}
	return l.config, nil
}

// preset sets the keys' defaults in t.
func preset[T any](l *loader, t *T, keys []key[T]) {
	for _, k := range keys {
		if k.preset != "" && k.shape == scalar {
			k.set(l, t, &node{shape: scalar, text: k.preset, literal: true}, k.path)
		}
	}
}

// fill sets in t the keys that n holds. The path of n is root.section; the paths
// in keys include section but not root.
func fill[T any](l *loader, t *T, keys []key[T], n *node, root, section string) {
	if !l.is(n, mapping, join(root, section)) {
		return
	}
	for _, p := range n.pairs {
		rel := join(section, p.key)
		full := join(root, rel)
		i := slices.IndexFunc(keys, func(k key[T]) bool { return k.path == rel })
		switch {
		case strings.Contains(p.key, "."): // `auth.username: x` is not how to write it
			l.unknown(p.at, full, p.key, nil)
		case i >= 0 && keys[i].shape == mapping:
			if !l.isSet(full) {
				l.places[full] = p.at
			}
			keys[i].set(l, t, p.value, full)
		case i >= 0 && p.value.shape != nothing:
			l.places[full] = p.value.at
			keys[i].set(l, t, p.value, full)
		case i >= 0: // null counts as not set
		case slices.ContainsFunc(keys, func(k key[T]) bool { return strings.HasPrefix(k.path, rel+".") }):
			fill(l, t, keys, p.value, root, rel)
		default:
			l.unknown(p.at, full, p.key, levels(keys, section))
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
func (l *loader) unknown(at place, path, name string, here []string) {
	hint := ""
	if near := nearest(name, here, l.keys); near != "" {
		hint = " (did you mean " + near + "?)"
	}
	l.problem(at, path, "unknown key%s", hint)
}

// is reports whether n has the shape, and records a problem if it has another. A
// null has no shape and is not a problem.
func (l *loader) is(n *node, want shape, path string) bool {
	if n.shape != want && n.shape != nothing {
		l.problem(n.at, path, "must be %s, not %s", want, n.shape)
	}
	return n.shape == want
}

// read returns the value of the scalar n, parsed as k. If that fails it records a
// problem.
func read[V any](l *loader, n *node, path string, k kind[V]) (v V, ok bool) {
	if n.shape == nothing {
		l.problem(n.at, path, "has no value; give it one or remove it")
		return v, false
	}
	if !l.is(n, scalar, path) {
		return v, false
	}
	text, ok := l.expand(n, path)
	if !ok {
		return v, false
	}
	v, err := k.parse(text)
	if err != nil {
		l.problem(n.at, path, "%s %s", shown(n, k.hidden), err)
		return v, false
	}
	return v, true
}

var reference = regexp.MustCompile(`\$\{([^}]*)\}`)

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces each ${NAME} in n's text. It leaves other dollar signs alone,
// because Harbor's robot accounts have them in their names, and does not expand
// the replacement again.
func (l *loader) expand(n *node, path string) (string, bool) {
	if n.literal {
		return n.text, true
	}
	ok := true
	text := reference.ReplaceAllStringFunc(n.text, func(ref string) string {
		name := ref[2 : len(ref)-1]
		value, set := l.environ[name]
		switch {
		case !variable.MatchString(name):
			l.problem(n.at, path, "%q is not a reference to a variable; only ${NAME} is replaced", ref)
			ok = false
		case !set:
			l.problem(n.at, path, "${%s} is not set in the environment", name)
			ok = false
		case value == "" && guards(path):
			l.problem(n.at, path, "${%s} is set but empty in the environment", name)
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
