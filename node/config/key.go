package config

import (
	"fmt"
	"slices"
)

// A Key describes one key that an operator can set.
type Key struct {
	Path    string // levels joined by dots; those of a registry begin with "registries.<host>."
	Type    string // for people: "size", "list of CIDR"
	Default string // as YAML; "" for an empty text
	Doc     string // what it does, in a sentence or two

	list bool
	text bool // an empty value is valid
}

// A key is a Key together with the function that sets its value in a T.
type key[T any] struct {
	path   string // below the section of T
	shape  shape  // scalar, list, or mapping for a section with keys of its own
	typ    string
	preset string
	doc    string
	text   bool
	shared bool // a registry's key that defaults takes too
	set    func(r *reader, t *T, n *node, path string)
	// of returns pointers to what the key sets in a T, to compare it and to copy it: see
	// changes.go. Sections have none.
	of func(t *T) []any
}

// Keys returns every key, in the order of docs/config.md.
func Keys() []Key {
	own := described(registryKeys, "registries.<host>.")
	for i, k := range registryKeys {
		if k.shared {
			own[i].Default = "as in defaults"
		}
	}
	return slices.Concat(described(configKeys, ""), described(shared(registryKeys), "defaults."), own, described(clusterKeys, "cluster."), described(archiveKeys, "archive."))
}

// described returns the keys as Keys, without the sections.
func described[T any](keys []key[T], before string) []Key {
	var all []Key
	for _, k := range keys {
		if k.shape != mapping {
			all = append(all, Key{before + k.path, k.typ, k.preset, k.doc, k.shape == list, k.text})
		}
	}
	return all
}

// shared returns the keys that defaults takes too.
func shared(keys []key[Registry]) []key[Registry] {
	return slices.DeleteFunc(slices.Clone(keys), func(k key[Registry]) bool { return !k.shared })
}

// one describes a key with a single value of kind k, to be stored in field.
func one[T, V any](path string, k kind[V], preset string, field func(*T) *V, doc string) key[T] {
	_, err := k.parse("")
	return key[T]{path: path, shape: scalar, typ: k.name, preset: preset, doc: doc, text: err == nil, of: pointer(field), set: func(r *reader, t *T, n *node, path string) {
		if v, ok := read(r, n, path, k); ok {
			*field(t) = v
		}
	}}
}

// many describes a key with a list of values of kind k, to be stored in field.
func many[T, V any](path string, k kind[V], field func(*T) *[]V, doc string) key[T] {
	return key[T]{path: path, shape: list, typ: "list of " + k.name, preset: "[]", doc: doc, text: true, of: pointer(field), set: func(r *reader, t *T, n *node, path string) {
		if !r.is(n, list, path) {
			return
		}
		all := make([]V, 0, len(n.items))
		for i, item := range n.items {
			r.places[index(path, i)] = item.at
			if v, ok := read(r, item, index(path, i), k); ok {
				all = append(all, v)
			}
		}
		*field(t) = all
	}}
}

// pointer returns what returns the field alone.
func pointer[T, V any](field func(*T) *V) func(*T) []any {
	return func(t *T) []any { return []any{field(t)} }
}

// with makes a key set further fields: what the checks make of it.
func with[T any](k key[T], more func(t *T) []any) key[T] {
	own := k.of
	k.of = func(t *T) []any { return append(own(t), more(t)...) }
	return k
}

// section describes a key that holds a section with a table of its own.
func section[T any](path string, set func(r *reader, t *T, n *node, path string)) key[T] {
	return key[T]{path: path, shape: mapping, set: set}
}

// asDefault marks a registry's key as one that defaults takes too.
func asDefault(k key[Registry]) key[Registry] {
	k.shared = true
	return k
}

// setMirrors reads a list whose items are hosts or mappings with mirrorKeys.
func setMirrors(r *reader, of *Registry, n *node, path string) {
	if !r.is(n, list, path) {
		return
	}
	for i, item := range n.items {
		var m Mirror
		at := index(path, i)
		r.places[at] = item.at
		if item.shape != mapping {
			m.Host, _ = read(r, item, at, mirrorKind)
		} else if fill(r, &m, mirrorKeys, item, at, ""); m.Host == "" && !r.failed(at+".host") {
			r.problem(item.at, at, "has no host; add one as host: NAME")
		}
		of.Mirrors = append(of.Mirrors, m)
	}
}

// setTags reads a list of rules with tagKeys.
func setTags(r *reader, of *Registry, n *node, path string) {
	if !r.is(n, list, path) {
		return
	}
	for i, item := range n.items {
		var t TagRule
		at := index(path, i)
		if fill(r, &t, tagKeys, item, at, ""); t.Match == "" && item.shape == mapping && !r.failed(at+".match") {
			r.problem(item.at, at, "has no match; add one, such as match: \"*-SNAPSHOT\"")
		}
		of.Tags = append(of.Tags, t)
	}
}

// setWarm reads a list of schedules with warmKeys.
func setWarm(r *reader, of *Config, n *node, path string) {
	if !r.is(n, list, path) {
		return
	}
	for i, item := range n.items {
		var w Warm
		at := index(path, i)
		preset(r, &w, warmKeys)
		if fill(r, &w, warmKeys, item, at, ""); len(w.Images) == 0 && item.shape == mapping && !r.failed(at+".images") {
			r.problem(item.at, at, "has no images; add some as images: [alpine:3]")
		}
		of.Warm = append(of.Warm, w)
	}
}

// index returns the path of item i of the list at path.
func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
