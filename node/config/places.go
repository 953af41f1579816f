package config

import (
	"fmt"
	"maps"
	"strings"
)

// Places tell where keys were set. The zero value knows none.
type Places struct {
	file string
	at   map[string]place
}

// placesOf returns the places that a report knows. Registries are found under their
// canonical hosts too.
func placesOf(r *report, entries []entry) Places {
	p := Places{r.file, maps.Clone(r.places)}
	for _, e := range entries {
		canonical := "registries." + e.Host
		for path, at := range r.places {
			if rest, below := strings.CutPrefix(path, e.path); below && canonical != e.path && (rest == "" || rest[0] == '.') {
				p.at[canonical+rest] = at
			}
		}
	}
	return p
}

// Of returns where the first of the keys that was set was set, as `file:line:column`
// or `environment NAME`, and "" if all have their defaults. A key is written as in
// [Problem], with the host of a registry as it is in the config or its canonical name.
func (p Places) Of(paths ...string) string {
	for _, path := range paths {
		at, set := p.at[path]
		switch {
		case !set:
		case at.variable != "":
			return "environment " + at.variable
		default:
			return fmt.Sprintf("%s:%d:%d", p.file, at.line, at.column)
		}
	}
	return ""
}
