package config

import (
	"fmt"
	"slices"
)

// A Key describes one thing an operator can say.
type Key struct {
	Path    string // levels joined by dots; a registry's begin with "registries.<host>."
	Type    string // for people: "size", "list of CIDR"
	Default string // as it stands in YAML; "" for an empty text
	Doc     string // one sentence

	list bool
	text bool // an empty value means something
}

// A key is a Key with the way its value gets into a T.
type key[T any] struct {
	path   string // below T's section
	shape  shape  // scalar, list, or mapping for a section with its own keys
	typ    string
	preset string
	doc    string
	text   bool
	shared bool // of a registry: stands under defaults, too
	set    func(l *loader, t *T, n *node, path string)
}

// Keys returns every key there is, in the order the README has them.
func Keys() []Key {
	own := described(registryKeys, "registries.<host>.")
	for i, k := range registryKeys {
		if k.shared {
			own[i].Default = "as in defaults"
		}
	}
	return slices.Concat(described(configKeys, ""), described(shared(registryKeys), "defaults."), own, described(clusterKeys, "cluster."))
}

func described[T any](keys []key[T], before string) []Key {
	var all []Key
	for _, k := range keys {
		if k.shape != mapping {
			all = append(all, Key{before + k.path, k.typ, k.preset, k.doc, k.shape == list, k.text})
		}
	}
	return all
}

// shared returns the keys that may stand under defaults.
func shared(keys []key[Registry]) []key[Registry] {
	return slices.DeleteFunc(slices.Clone(keys), func(k key[Registry]) bool { return !k.shared })
}

// one describes a key with a single value of kind k, which belongs in field.
func one[T, V any](path string, k kind[V], preset string, field func(*T) *V, doc string) key[T] {
	_, err := k.parse("")
	return key[T]{path: path, shape: scalar, typ: k.name, preset: preset, doc: doc, text: err == nil, set: func(l *loader, t *T, n *node, path string) {
		if v, ok := read(l, n, path, k); ok {
			*field(t) = v
		}
	}}
}

// many describes a key with a list of values of kind k, which belong in field.
func many[T, V any](path string, k kind[V], field func(*T) *[]V, doc string) key[T] {
	return key[T]{path: path, shape: list, typ: "list of " + k.name, preset: "[]", doc: doc, text: true, set: func(l *loader, t *T, n *node, path string) {
		if !l.is(n, list, path) {
			return
		}
		all := make([]V, 0, len(n.items))
		for i, item := range n.items {
			l.places[index(path, i)] = item.at
			if v, ok := read(l, item, index(path, i), k); ok {
				all = append(all, v)
			}
		}
		*field(t) = all
	}}
}

// section describes a key below which a table of its own rules.
func section[T any](path string, set func(l *loader, t *T, n *node, path string)) key[T] {
	return key[T]{path: path, shape: mapping, set: set}
}

// asDefault marks a registry's key as one that defaults may hold as well.
func asDefault(k key[Registry]) key[Registry] {
	k.shared = true
	return k
}

// setMirrors reads a list whose items are hosts or mirrorKeys.
func setMirrors(l *loader, r *Registry, n *node, path string) {
	if !l.is(n, list, path) {
		return
	}
	for i, item := range n.items {
		var m Mirror
		at := index(path, i)
		if item.shape != mapping {
			m.Host, _ = read(l, item, at, hostKind)
		} else if fill(l, &m, mirrorKeys, item, at, ""); m.Host == "" && !l.failed(at+".host") {
			l.problem(item.at, at, "needs a host")
		}
		r.Mirrors = append(r.Mirrors, m)
	}
}

// index names an item of the list at path.
func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
