package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A loader gathers what was said, what is wrong with it and where it was said.
type loader struct {
	file       string
	environ    map[string]string
	config     *Config
	registries *node   // kept until the defaults they start from are known
	entries    []entry // of registries, in the file's order
	places     map[string]place
	elsewhere  []string // every key there is, for the search for the nearest one
	problems   Problems
	finding    bool // see Find
}

// An entry is a registry on its way into the config.
type entry struct {
	Registry
	path string
	at   place
}

func parse(file string, text []byte, environ []string, notYet []gap) (*Config, error) {
	return newLoader(file, environ).parse(text, notYet)
}

func newLoader(file string, environ []string) *loader {
	return &loader{file: file, environ: environment(environ), config: &Config{}, places: map[string]place{}}
}

func (l *loader) parse(text []byte, notYet []gap) (*Config, error) {
	for _, k := range Keys() {
		l.elsewhere = append(l.elsewhere, k.Path)
	}
	preset(l, l.config, configKeys)
	preset(l, &l.config.Defaults, registryKeys)
	fill(l, l.config, configKeys, l.decode(text), "", "")
	l.fillFromEnvironment()
	l.fillRegistries()
	l.check()
	l.refuse(notYet)
	if len(l.problems) > 0 {
		l.problems.sort()
		return nil, l.problems
	}
	return l.config, nil
}

// preset gives t the defaults of its keys.
func preset[T any](l *loader, t *T, keys []key[T]) {
	for _, k := range keys {
		if k.preset != "" && k.shape == scalar {
			k.set(l, t, &node{shape: scalar, text: k.preset, literal: true}, k.path)
		}
	}
}

// fill sets in t what n says. n stands at root.section, of which only section
// is part of the paths of keys.
func fill[T any](l *loader, t *T, keys []key[T], n *node, root, section string) {
	if !l.is(n, mapping, join(root, section)) {
		return
	}
	for _, p := range n.pairs {
		rel := join(section, p.key)
		full := join(root, rel)
		i := slices.IndexFunc(keys, func(k key[T]) bool { return k.path == rel })
		switch {
		case strings.Contains(p.key, "."): // `auth.username: x` is no way to write it
			l.unknown(p.at, full, p.key, nil)
		case i >= 0 && keys[i].shape == mapping:
			if _, said := l.places[full]; !said {
				l.places[full] = p.at
			}
			keys[i].set(l, t, p.value, full)
		case i >= 0 && p.value.shape != nothing:
			l.places[full] = p.value.at
			keys[i].set(l, t, p.value, full)
		case i >= 0: // null: as if it were not there
		case slices.ContainsFunc(keys, func(k key[T]) bool { return strings.HasPrefix(k.path, rel+".") }):
			fill(l, t, keys, p.value, root, rel)
		default:
			l.unknown(p.at, full, p.key, levels(keys, section))
		}
	}
}

// levels returns the keys and sections that may stand in section.
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

func (l *loader) unknown(at place, path, name string, here []string) {
	hint := ""
	if near := nearest(name, here, l.elsewhere); near != "" {
		hint = " (did you mean " + near + "?)"
	}
	l.problem(at, path, "unknown key%s", hint)
}

// is reports whether n has the shape, and notes a problem if it has another
// one. Nothing at all has no shape, and is no problem.
func (l *loader) is(n *node, want shape, path string) bool {
	if n.shape != want && n.shape != nothing {
		l.problem(n.at, path, "must be %s, not %s", want, n.shape)
	}
	return n.shape == want
}

// read returns the scalar n as k understands it.
func read[V any](l *loader, n *node, path string, k kind[V]) (v V, ok bool) {
	if n.shape == nothing {
		l.problem(n.at, path, "has no value")
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

// expand replaces each ${NAME} in n's text. Other dollars stay, for the names
// of Harbor's robot accounts hold them. What is put in is not looked at again.
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
			l.problem(n.at, path, "%q names no variable of the environment; only ${NAME} is replaced", ref)
			ok = false
		case !set:
			l.problem(n.at, path, "${%s} is not set in the environment", name)
			ok = false
		case value == "" && guards(path):
			l.problem(n.at, path, "${%s} is empty in the environment", name)
			ok = false
		}
		return value
	})
	return text, ok
}

// shown returns how an error names the value of n. What came out of ${NAME} may
// be a secret, wherever it stands, and is not shown.
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
