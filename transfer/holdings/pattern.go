package holdings

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// Names say how people's names become registries'.
type Names struct {
	Default   string                             // the registry of a name without one
	Canonical func(registry string) string       // the registry's own name
	Shown     func(registry string) string       // what people call it
	Image     func(name string) (oci.Ref, error) // what the name of one image means
}

// A Pattern chooses images, by their name or by wildcards: * stands for any characters of
// one part of a name, or of a tag, and ** for any number of parts.
type Pattern struct {
	text  string
	shown func(string) string
	one   *oci.Ref // the name of one image
	parts []string // of registry/repository
	tag   string   // "" for all, and for what has no tag
}

// maxPattern bounds a pattern, in bytes.
const maxPattern = 1 << 10

// errPattern: a pattern can't match anything.
var errPattern = errors.New("a pattern is registry/repository or registry/repository:tag, with * for one part and ** for any number")

// Parse reads a pattern. Without * it is the name of one image, as clients write it.
func (n Names) Parse(text string) (Pattern, error) {
	p := Pattern{text: text, shown: n.Shown}
	if len(text) > maxPattern || text == "" {
		return p, errPattern
	}
	if !strings.Contains(text, "*") {
		ref, err := n.Image(text)
		p.one = &ref
		return p, err
	}
	name := text
	if at := strings.LastIndexByte(name, ':'); at > strings.LastIndexByte(name, '/') {
		name, p.tag = name[:at], name[at+1:]
		if p.tag == "" {
			return p, fmt.Errorf("%q: %w", text, errPattern)
		}
	}
	p.parts = strings.Split(name, "/")
	for _, part := range p.parts {
		if part == "" || strings.Contains(part, "**") && part != "**" || strings.ContainsAny(part, "@ ") {
			return p, fmt.Errorf("%q: %w", text, errPattern)
		}
	}
	switch first := p.parts[0]; {
	case strings.Contains(first, "*"):
	case strings.ContainsAny(first, ".:") || first == "localhost" || n.Canonical(first) != first:
		p.parts[0] = n.Canonical(first)
	default:
		p.parts = append([]string{n.Default}, p.parts...)
	}
	return p, nil
}

// String returns the pattern as it was written.
func (p Pattern) String() string { return p.text }

// Matches reports whether the pattern chooses what a registry's tag or digest names.
func (p Pattern) Matches(ref oci.Ref, means digest.Digest) bool {
	if p.one != nil {
		same := p.one.Registry == ref.Registry && p.one.Repository == ref.Repository
		return same && (p.one.Digest != "" && p.one.Digest == means || p.one.Digest == "" && p.one.Tag == ref.Tag)
	}
	if p.tag != "" && (ref.Tag == "" || !wild(p.tag, ref.Tag)) {
		return false
	}
	rest := strings.Split(ref.Repository, "/")
	for _, registry := range []string{ref.Registry, p.shown(ref.Registry)} {
		if along(p.parts, append([]string{registry}, rest...)) {
			return true
		}
	}
	return false
}

// Covers reports whether the pattern chooses all of a registry.
func (p Pattern) Covers(registry string) bool {
	if p.one != nil || p.tag != "" || p.parts[len(p.parts)-1] != "**" {
		return false
	}
	before := p.parts[:len(p.parts)-1]
	for _, name := range []string{registry, p.shown(registry)} {
		if along(before, []string{name}) || len(before) == 0 {
			return true
		}
	}
	return false
}

// along matches parts. reach[j] says whether the pattern so far matches the first j parts.
func along(pattern, parts []string) bool {
	reach := make([]bool, len(parts)+1)
	reach[0] = true
	for _, want := range pattern {
		next := make([]bool, len(parts)+1)
		next[0] = want == "**" && reach[0]
		for j, part := range parts {
			if want == "**" {
				next[j+1] = reach[j+1] || next[j]
			} else {
				next[j+1] = reach[j] && wild(want, part)
			}
		}
		reach = next
	}
	return reach[len(parts)]
}

// wild matches one part: * stands for any characters.
func wild(pattern, text string) bool {
	pieces := strings.Split(pattern, "*")
	if len(pieces) == 1 {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, pieces[0])
	if !ok {
		return false
	}
	for _, piece := range pieces[1 : len(pieces)-1] {
		at := strings.Index(text, piece)
		if at < 0 {
			return false
		}
		text = text[at+len(piece):]
	}
	return strings.HasSuffix(text, pieces[len(pieces)-1])
}
