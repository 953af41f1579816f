package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// registriesYAML is what setup adds to the registries.yaml of k3s: the proxy as first endpoint
// of registries, and the authority of its certificate.
type registriesYAML struct {
	url, host string   // of the proxy
	names     []string // of registries, "*" for all others
	ca        string   // path, "" for none
}

func (r registriesYAML) into(text []byte) ([]byte, error) {
	now, err := r.merged(text)
	if err != nil {
		return nil, refuse(err.Error(), r.byHand())
	}
	return now, nil
}

func (r registriesYAML) byHand() string {
	text, _ := r.merged(nil) // an empty text takes all
	return string(unframed(text))
}

func (r registriesYAML) merged(text []byte) (now []byte, err error) {
	want, _, err := readYAML(text)
	if err != nil {
		return nil, err
	}
	now = text
	var entries []string // of registries that have none
	for _, name := range r.names {
		old, _ := lookUp(want, "mirrors", name, "endpoint").([]any)
		if slices.Contains(old, any(r.url)) {
			continue
		}
		if !set(want, append([]any{r.url}, old...), "mirrors", name, "endpoint") {
			return nil, errForm
		}
		_, root, err := readYAML(now)
		if err != nil {
			return nil, err
		}
		if list := under(root, "mirrors", name, "endpoint"); list == nil {
			entries = append(entries, fmt.Sprintf("%q:", name), "  endpoint:", fmt.Sprintf("    - %q", r.url))
		} else if now, err = r.intoList(now, list); err != nil {
			return nil, err
		}
	}
	if now, err = withEntries(now, "mirrors", entries); err != nil {
		return nil, err
	}
	if now, err = r.withCA(now, want); err != nil {
		return nil, err
	}
	got, _, err := readYAML(now)
	if err != nil || !reflect.DeepEqual(got, want) {
		return nil, errForm
	}
	return now, nil
}

// intoList adds the proxy to a list of endpoints in a text.
func (r registriesYAML) intoList(text []byte, list *yaml.Node) ([]byte, error) {
	if list.Kind != yaml.SequenceNode || list.Style&yaml.FlowStyle != 0 || len(list.Content) == 0 || list.Anchor != "" {
		return nil, errForm
	}
	first := list.Content[0]
	at := lineAt(text, first.Line)
	before := string(text[at : at+first.Column-1])
	if strings.Trim(before, " ") != "-" {
		return nil, errForm
	}
	return insert(text, at, marked(fmt.Sprintf("%s%q", before, r.url))), nil
}

// withCA adds the authority of the proxy's certificate, in the text and in what it says.
func (r registriesYAML) withCA(text []byte, want map[string]any) ([]byte, error) {
	if r.ca == "" || lookUp(want, "configs", r.host, "tls", "ca_file") == r.ca {
		return text, nil
	}
	if lookUp(want, "configs", r.host) != nil {
		return nil, fmt.Errorf("configs has an entry for %s already", r.host)
	}
	if !set(want, r.ca, "configs", r.host, "tls", "ca_file") {
		return nil, errForm
	}
	return withEntries(text, "configs", []string{fmt.Sprintf("%q:", r.host), "  tls:", fmt.Sprintf("    ca_file: %q", r.ca)})
}

// withEntries adds entries to the mapping under a key of the root, before its first one.
func withEntries(text []byte, key string, entries []string) ([]byte, error) {
	if len(entries) == 0 {
		return text, nil
	}
	_, root, err := readYAML(text)
	if err != nil {
		return nil, err
	}
	m := under(root, key)
	switch {
	case m == nil:
		return insert(text, len(text), marked(append([]string{key + ":"}, indented(entries, "  ")...)...)), nil
	case m.Kind == yaml.ScalarNode && m.Tag == "!!null" && m.Value == "":
		return insert(text, nextLine(text, lineAt(text, keyLineOf(root, key))), marked(indented(entries, "  ")...)), nil
	case m.Kind == yaml.MappingNode && len(m.Content) == 0:
		return inPlace(text, keyLineOf(root, key), key, indented(entries, "  "))
	case m.Kind != yaml.MappingNode || m.Style&yaml.FlowStyle != 0 || len(m.Content) == 0 || m.Anchor != "":
		return nil, errForm
	}
	first := m.Content[0]
	return insert(text, lineAt(text, first.Line), marked(indented(entries, strings.Repeat(" ", first.Column-1))...)), nil
}

// inPlace puts entries in the place of an empty mapping, if that has its line to itself.
func inPlace(text []byte, n int, key string, entries []string) ([]byte, error) {
	from := lineAt(text, n)
	old := strings.TrimRight(string(text[from:nextLine(text, from)]), "\r\n")
	bare, _, _ := strings.Cut(old, " #")
	if bare = strings.Join(strings.Fields(bare), ""); bare != key+":{}" {
		return nil, errForm
	}
	part := marked(append([]string{was + old, key + ":"}, entries...)...)
	return insert(slices.Concat(text[:from], text[nextLine(text, from):]), from, part), nil
}

// keyLineOf is the line of a key in a mapping.
func keyLineOf(m *yaml.Node, key string) int {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i].Line
		}
	}
	return 1
}

func indented(lines []string, by string) (all []string) {
	for _, l := range lines {
		all = append(all, by+l)
	}
	return all
}

// lineAt is where a line begins, counted from 1.
func lineAt(text []byte, n int) int {
	at := 0
	for ; n > 1; n-- {
		at = nextLine(text, at)
	}
	return at
}

// under returns the node under a path of keys, nil for none.
func under(n *yaml.Node, path ...string) *yaml.Node {
	for _, key := range path {
		if n == nil || n.Kind != yaml.MappingNode {
			return nil
		}
		i := slices.IndexFunc(n.Content, func(c *yaml.Node) bool { return c.Value == key })
		if i < 0 || i%2 != 0 {
			return nil
		}
		n = n.Content[i+1]
	}
	return n
}

// readYAML reads a text with one mapping, or with nothing.
func readYAML(text []byte) (says map[string]any, root *yaml.Node, err error) {
	says = map[string]any{}
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return says, nil, nil
	} else if err != nil {
		return nil, nil, errors.New("it is not valid YAML: " + err.Error())
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, nil, errors.New("it has several documents")
	}
	if err := doc.Decode(&says); err != nil {
		return nil, nil, errors.New("it is not valid YAML: " + err.Error())
	}
	if says == nil {
		says = map[string]any{}
	}
	return says, doc.Content[0], nil
}
