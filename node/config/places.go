package config

import "fmt"

// Places tell where keys were set. The zero value knows none.
type Places struct {
	file string
	at   map[string]place
}

// Of returns where the first of the keys that was set was set, as `file:line:column`
// or `environment NAME`, and "" if all have their defaults. A key is written as in
// [Problem].
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
