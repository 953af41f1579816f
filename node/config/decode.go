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

// A shape is the kind of a node, as errors name it.
type shape string

const (
	nothing shape = "nothing" // null, or no value at all
	scalar  shape = "a single value"
	list    shape = "a list"
	mapping shape = "a mapping"
)

// A node is one value of the file or of the environment, with its place. Only
// this file knows YAML.
type node struct {
	at      place
	shape   shape
	text    string // of a scalar
	literal bool   // ${NAME} in text is not replaced
	items   []*node
	pairs   []pair
}

// A pair is one key of a mapping.
type pair struct {
	key   string
	at    place
	value *node
}

// maxDepth bounds how deeply a file may nest. No key is that deep.
const maxDepth = 8

// A decoder converts YAML's nodes into ours.
type decoder struct {
	*report
	done map[*yaml.Node]*node // converts each node once, or aliases of aliases would explode; nil while in progress
}

// decode returns the file's tree. It is a node of shape nothing if the file is
// empty or not YAML.
func decode(r *report, text []byte) *node {
	d := decoder{r, map[*yaml.Node]*node{}}
	none := &node{shape: nothing}
	in := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	err := in.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return none
	}
	if err != nil {
		d.syntax(text, err)
		return none
	}
	switch err := in.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntax(text, err)
	default:
		d.problem(place{line: second.Line, column: second.Column}, "", "a second YAML document starts here; put everything into one")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return none
	}
	return d.node(doc.Content[0], "", 0)
}

var (
	yamlLine   = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	yamlAnchor = regexp.MustCompile(`unknown anchor '(.*)' referenced`)
)

// syntax reports an error of the YAML parser, which gives a line at best, and only
// in its text.
func (d decoder) syntax(text []byte, err error) {
	at := place{line: 1, column: 1}
	reason := err.Error()
	if m := yamlAnchor.FindStringSubmatch(reason); m != nil {
		// It may be a password that begins with *, so give its place, not its text.
		before := text[:max(0, bytes.Index(text, []byte("*"+m[1])))]
		at.line += bytes.Count(before, []byte("\n"))
		at.column = len(before) - bytes.LastIndexByte(before, '\n')
		reason = "unknown anchor; put a value that begins with * in quotes"
	} else if m := yamlLine.FindStringSubmatch(reason); m != nil {
		reason = reason[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil {
			at.line = n
		}
	}
	d.problem(at, "", "not valid YAML: %s", reason)
}

// node returns the node for y, converting it if that has not been done yet.
func (d decoder) node(y *yaml.Node, path string, depth int) *node {
	none := &node{at: placeOf(y), shape: nothing}
	if depth > maxDepth {
		d.problem(none.at, path, "is nested too deeply; no key is that deep")
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

// convert returns a new node for y.
func (d decoder) convert(y *yaml.Node, path string, depth int) *node {
	n := &node{at: placeOf(y), shape: nothing}
	switch y.Kind {
	case yaml.AliasNode:
		if target, known := d.done[y.Alias]; known && target == nil {
			d.problem(n.at, path, "is an alias that contains itself")
			return n
		}
		return d.node(y.Alias, path, depth+1)
	case yaml.ScalarNode:
		if tag := y.ShortTag(); tag == "!!null" {
			return n
		} else if !strings.HasPrefix(tag, "!!") || tag == "!!binary" {
			d.problem(n.at, path, "has a YAML tag, which no key takes; put a value that begins with ! in quotes")
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

// pairs adds the keys of y to n. A key of y wins over the same key merged from
// elsewhere (`<<: *base`).
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
			d.problem(at, join(path, k.Value), "is given twice, first on line %d; keep one of them", before.line)
		default:
			first[k.Value] = at
			n.pairs = append(n.pairs, pair{k.Value, at, d.node(v, join(path, k.Value), depth+1)})
		}
	}
	for _, v := range merged {
		d.merge(n, first, d.node(v, path, depth+1), path)
	}
}

// merge adds to n the keys that it lacks from the mapping from, or from each
// mapping in the list from.
func (d decoder) merge(n *node, have map[string]place, from *node, path string) {
	sources := from.items
	if from.shape != list {
		sources = []*node{from}
	}
	for _, source := range sources {
		if source.shape != mapping {
			d.problem(source.at, path, "<< merges mappings, not %s", source.shape)
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

// placeOf returns the place of y in the file.
func placeOf(y *yaml.Node) place { return place{line: max(y.Line, 1), column: max(y.Column, 1)} }

// join appends a level to a path; either may be empty. A level that contains an @
// is hidden: no key has one, people put logins into them, and errors show paths.
func join(path, level string) string {
	if strings.Contains(level, "@") {
		level = "…"
	}
	if path == "" || level == "" {
		return path + level
	}
	return path + "." + level
}
