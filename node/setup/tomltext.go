package setup

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// A line is a header or a key of a TOML text, and where it stands.
type line struct {
	path  []string // of a key: with that of its table
	table bool     // it is the header of a table
	from  int      // where its line begins
	to    int      // where the line behind its last one begins
	value span     // of a key
	multi bool     // of a key: it goes over several lines
}

// readTOML reads a whole TOML text: what it says, and its lines.
func readTOML(text []byte) (says map[string]any, lines []line, err error) {
	says = map[string]any{}
	if err := toml.Unmarshal(text, &says); err != nil {
		return nil, nil, err
	}
	p := unstable.Parser{}
	p.Reset(text)
	var table []string
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			var l line
			l.path, _, l.from = keys(e)
			l.from = lineStart(text, l.from)
			l.to, l.table = nextLine(text, l.from), e.Kind == unstable.Table
			table = l.path
			lines = append(lines, l)
		case unstable.KeyValue:
			lines = append(lines, keyLine(text, table, e))
		}
	}
	return says, lines, p.Error()
}

// keyLine is the line of a key.
func keyLine(text []byte, table []string, e *unstable.Node) (l line) {
	own, behind, _ := keys(e)
	l.path = append(slices.Clone(table), own...)
	from, to := int(e.Raw.Offset), int(e.Raw.Offset+e.Raw.Length)
	l.from, l.to = lineStart(text, from), nextLine(text, to)
	l.value = span{behind + bytes.IndexByte(text[behind:], '=') + 1, to}
	l.multi = bytes.IndexByte(text[from:to], '\n') >= 0
	return l
}

// keys are the parts of an expression's key, where the last one ends, and where the first one
// begins.
func keys(e *unstable.Node) (path []string, end, begin int) {
	begin = -1
	for it := e.Key(); it.Next(); {
		k := it.Node()
		path = append(path, string(k.Data))
		end = int(k.Raw.Offset + k.Raw.Length)
		if begin < 0 {
			begin = int(k.Raw.Offset)
		}
	}
	return path, end, begin
}

// find returns the header of a table, or a key.
func find(lines []line, table bool, path ...string) (line, bool) {
	i := slices.IndexFunc(lines, func(l line) bool {
		return l.table == table && slices.Equal(l.path, path)
	})
	if i < 0 {
		return line{}, false
	}
	return lines[i], true
}

// lookUp returns the value under a path of keys, nil for none.
func lookUp(says map[string]any, path ...string) any {
	var v any = says
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

// set sets the value under a path of keys. It reports false if something else is in the way.
func set(says map[string]any, value any, path ...string) bool {
	for _, key := range path[:len(path)-1] {
		if says[key] == nil {
			says[key] = map[string]any{}
		}
		m, ok := says[key].(map[string]any)
		if !ok {
			return false
		}
		says = m
	}
	says[path[len(path)-1]] = value
	return true
}

// A setting is a key of a TOML text with its value.
type setting struct {
	path  []string // of its table
	key   string
	text  string // the value as TOML has it
	value any    // the value as readTOML has it
}

// errForm means that a text says what it says in a way that setup can't add to.
var errForm = errors.New("its form is not one that setup can add to")

// settled puts settings into a TOML text. Those of tables that are not there yet come at the
// end, in one part. The text is not changed if it says all of it. No more than what is set may
// differ then.
func settled(text []byte, settings []setting) ([]byte, error) {
	want, _, err := readTOML(text)
	if err != nil {
		return nil, errors.New("it is not valid TOML: " + err.Error())
	}
	now, rest := text, []string(nil)
	var table []string // of the last one in rest
	for _, s := range settings {
		if reflect.DeepEqual(lookUp(want, append(slices.Clone(s.path), s.key)...), s.value) {
			continue
		}
		if !set(want, s.value, append(slices.Clone(s.path), s.key)...) {
			return nil, errForm
		}
		in, ok, err := placed(now, s)
		if err != nil {
			return nil, err
		}
		if ok {
			now = in
			continue
		}
		if !slices.Equal(table, s.path) {
			table = s.path
			rest = append(rest, "["+header(table)+"]")
		}
		rest = append(rest, "  "+s.key+" = "+s.text)
	}
	if len(rest) > 0 {
		now = insert(now, len(now), marked(rest...))
	}
	got, _, err := readTOML(now)
	if err != nil || !reflect.DeepEqual(got, want) {
		return nil, errForm
	}
	return now, nil
}

// placed puts a setting in the place of its key, or below the header of its table. It reports
// false if neither is there.
func placed(text []byte, s setting) ([]byte, bool, error) {
	_, lines, err := readTOML(text)
	if err != nil {
		return nil, false, errForm
	}
	if l, ok := find(lines, false, append(slices.Clone(s.path), s.key)...); ok {
		if l.multi {
			return nil, false, errors.New(s.key + " goes over several lines")
		}
		old := strings.TrimRight(string(text[l.from:l.to]), "\r\n")
		added := old[:l.value.from-l.from] + " " + s.text
		return insert(slices.Concat(text[:l.from], text[l.to:]), l.from, marked(was+old, added)), true, nil
	}
	if l, ok := find(lines, true, s.path...); ok {
		indent := leading(string(text[l.from:l.to])) + "  "
		return insert(text, l.to, marked(indent+s.key+" = "+s.text)), true, nil
	}
	return nil, false, nil
}

// leading is the space at the beginning of a line.
func leading(s string) string { return s[:len(s)-len(strings.TrimLeft(s, " \t"))] }

// header writes a path of keys.
func header(path []string) string {
	var parts []string
	for _, key := range path {
		if strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			key = `"` + key + `"`
		}
		parts = append(parts, key)
	}
	return strings.Join(parts, ".")
}
