package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// A shape is what a node is made of.
type shape string

const (
	nothing shape = "nothing" // null, or no value at all
	scalar  shape = "a single value"
	list    shape = "a list"
	mapping shape = "keys"
)

// A node is one value of the file or of the environment, with its place. This
// file is the only one that knows YAML.
type node struct {
	at      place
	shape   shape
	text    string // of a scalar
	literal bool   // text is not searched for ${NAME}
	items   []*node
	pairs   []pair
}

// A pair is one key of a mapping.
type pair struct {
	key   string
	at    place
	value *node
}

// maxDepth bounds how deep a file nests. No key is as deep.
const maxDepth = 8

// A decoder turns YAML's nodes into ours.
type decoder struct {
	*loader
	done map[*yaml.Node]*node // each is turned once, or aliases of aliases explode; nil while it is under way
}

// decode returns the file's tree, a node of nothing if there is none.
func (l *loader) decode(text []byte) *node {
	none := &node{shape: nothing}
	in := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	err := in.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return none
	}
	if err != nil {
		l.syntax(text, err)
		return none
	}
	switch err := in.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		l.syntax(text, err)
	default:
		l.problem(place{line: second.Line, column: second.Column}, "", "a second document starts here; a config is one document")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return none
	}
	d := decoder{l, map[*yaml.Node]*node{}}
	return d.node(doc.Content[0], "", 0)
}

var (
	yamlLine   = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	yamlAnchor = regexp.MustCompile(`unknown anchor '(.*)' referenced`)
)

// syntax reports what the YAML parser says. It knows the line at best, and
// tells it nowhere but in its text.
func (l *loader) syntax(text []byte, err error) {
	at := place{line: 1, column: 1}
	reason := err.Error()
	if m := yamlAnchor.FindStringSubmatch(reason); m != nil {
		// It may be a password that begins with *: say where, not what.
		before := text[:max(0, bytes.Index(text, []byte("*"+m[1])))]
		at.line += bytes.Count(before, []byte("\n"))
		at.column = len(before) - bytes.LastIndexByte(before, '\n')
		reason = "there is no such anchor; quote a text that begins with *"
	} else if m := yamlLine.FindStringSubmatch(reason); m != nil {
		reason = reason[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil {
			at.line = n
		}
	}
	l.problem(at, "", "no valid YAML: %s", reason)
}

func (d decoder) node(y *yaml.Node, path string, depth int) *node {
	none := &node{at: placeOf(y), shape: nothing}
	if depth > maxDepth {
		d.problem(none.at, path, "nests too deep")
		return none
	}
	if n, known := d.done[y]; known {
		return n
	}
	d.done[y] = nil
	n := d.convert(y, path, depth)
	d.done[y] = n
	return n
}

func (d decoder) convert(y *yaml.Node, path string, depth int) *node {
	n := &node{at: placeOf(y), shape: nothing}
	switch y.Kind {
	case yaml.AliasNode:
		if target, known := d.done[y.Alias]; known && target == nil {
			d.problem(n.at, path, "holds itself")
			return n
		}
		return d.node(y.Alias, path, depth+1)
	case yaml.ScalarNode:
		if tag := y.ShortTag(); tag == "!!null" {
			return n
		} else if !strings.HasPrefix(tag, "!!") || tag == "!!binary" {
			d.problem(n.at, path, "begins with a tag that means nothing here; quote a text that begins with !")
			return n
		}
		n.shape, n.text = scalar, y.Value
	case yaml.SequenceNode:
		n.shape = list
		for i, item := range y.Content {
			n.items = append(n.items, d.node(item, fmt.Sprintf("%s[%d]", path, i), depth+1))
		}
	case yaml.MappingNode:
		n.shape = mapping
		d.pairs(n, y, path, depth)
	}
	return n
}

// pairs fills n with the keys of y. Keys that are merged (`<<: *base`) give way
// to those that stand beside them.
func (d decoder) pairs(n *node, y *yaml.Node, path string, depth int) {
	first := map[string]place{}
	var merged []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		at := placeOf(k)
		switch before, twice := first[k.Value]; {
		case k.ShortTag() == "!!merge":
			merged = append(merged, v)
		case k.Kind != yaml.ScalarNode:
			d.problem(at, path, "a key must be a single value")
		case twice:
			d.problem(at, join(path, k.Value), "given twice, first on line %d", before.line)
		default:
			first[k.Value] = at
			n.pairs = append(n.pairs, pair{k.Value, at, d.node(v, join(path, k.Value), depth+1)})
		}
	}
	for _, v := range merged {
		d.merge(n, first, d.node(v, path, depth+1), path)
	}
}

// merge adds to n the keys of from, or of each item of from, that n lacks.
func (d decoder) merge(n *node, have map[string]place, from *node, path string) {
	sources := from.items
	if from.shape != list {
		sources = []*node{from}
	}
	for _, source := range sources {
		if source.shape != mapping {
			d.problem(source.at, path, "<< merges keys, not %s", source.shape)
			continue
		}
		for _, p := range source.pairs {
			if _, has := have[p.key]; !has {
				have[p.key] = p.at
				n.pairs = append(n.pairs, p)
			}
		}
	}
}

func placeOf(y *yaml.Node) place { return place{line: max(y.Line, 1), column: max(y.Column, 1)} }

// join appends a level to a path; either may be empty. Errors print paths, and
// people put logins into keys, too: a level with an @, which no key has, is not told.
func join(path, level string) string {
	if strings.Contains(level, "@") {
		level = "…"
	}
	if path == "" || level == "" {
		return path + level
	}
	return path + "." + level
}
