package setup

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// daemonJSON is what setup adds to Docker's daemon.json. The file takes no comments and no
// unknown keys, so nothing in it tells what is ours; the record does.
type daemonJSON struct {
	mirror   string // URL; "" for none
	insecure string // host[:port]; "" for none
}

// lists are the values that are added, by key.
func (d daemonJSON) lists() (all []listed) {
	if d.mirror != "" {
		all = append(all, listed{"registry-mirrors", d.mirror})
	}
	if d.insecure != "" {
		all = append(all, listed{"insecure-registries", d.insecure})
	}
	return all
}

// A listed is a value in the list under a key.
type listed struct{ key, value string }

func (d daemonJSON) into(text []byte) ([]byte, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("{}\n")
	}
	now := text
	for _, l := range d.lists() {
		o, err := readObject(now)
		if err != nil {
			return nil, refuse("it is not valid JSON: "+err.Error(), d.byHand())
		}
		if now, err = o.with(l); err != nil {
			return nil, refuse(err.Error(), d.byHand())
		}
	}
	if err := d.verify(text, now); err != nil {
		return nil, refuse(err.Error(), d.byHand())
	}
	return now, nil
}

// verify checks that nothing but the added values differs.
func (d daemonJSON) verify(before, after []byte) error {
	var want, got map[string]any
	if err := errors.Join(decodeJSON(before, &want), decodeJSON(after, &got)); err != nil {
		return err
	}
	for _, l := range d.lists() {
		old, _ := want[l.key].([]any) // it was a list, or not there
		if !slices.ContainsFunc(old, func(v any) bool { return same(v, l.value) }) {
			want[l.key] = append([]any{l.value}, old...)
		}
	}
	if !reflect.DeepEqual(want, got) {
		return errors.New("its form is not one that setup can add to")
	}
	return nil
}

func (d daemonJSON) byHand() string {
	var lines []string
	for _, l := range d.lists() {
		lines = append(lines, fmt.Sprintf("%q: [%q]", l.key, l.value))
	}
	return strings.Join(lines, ",\n")
}

// same reports whether a value in a list is this one. Docker does not tell a URL from one with
// a slash at its end.
func same(v any, value string) bool {
	s, ok := v.(string)
	return ok && strings.TrimSuffix(s, "/") == strings.TrimSuffix(value, "/")
}

func decodeJSON(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return dec.Decode(v)
}

// sameJSON reports whether two texts are JSON that says the same.
func sameJSON(a, b []byte) bool {
	var x, y any
	return decodeJSON(a, &x) == nil && decodeJSON(b, &y) == nil && reflect.DeepEqual(x, y)
}

// A span is a piece of a text.
type span struct{ from, to int }

// A member is a key of an object with its value.
type member struct {
	key   string
	all   span // with the key
	value span
}

// An object is a JSON object and where everything in it stands.
type object struct {
	text    []byte
	members []member
	end     int // of the closing brace
}

// readObject reads a text that is one object.
func readObject(text []byte) (o object, err error) {
	o.text = text
	dec := json.NewDecoder(bytes.NewReader(text))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return o, cmp.Or(err, errors.New("it does not begin with {"))
	}
	for dec.More() {
		m := member{}
		m.all.from = next(text, int(dec.InputOffset()))
		t, err := dec.Token()
		if err != nil {
			return o, err
		}
		m.key, _ = t.(string) // a key always is
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return o, err
		}
		m.value.to = int(dec.InputOffset())
		m.value.from, m.all.to = m.value.to-len(raw), m.value.to
		if slices.ContainsFunc(o.members, func(other member) bool { return other.key == m.key }) {
			return o, fmt.Errorf("the key %q is there twice", m.key)
		}
		o.members = append(o.members, m)
	}
	if _, err := dec.Token(); err != nil {
		return o, err
	}
	o.end = int(dec.InputOffset()) - 1
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return o, errors.New("something follows the closing brace")
	}
	return o, nil
}

// next is where the next key or value begins, behind spaces and a comma.
func next(text []byte, at int) int {
	for at < len(text) && strings.IndexByte(" \t\r\n,", text[at]) >= 0 {
		at++
	}
	return at
}

// member returns the member with that key.
func (o object) member(key string) (member, bool) {
	i := slices.IndexFunc(o.members, func(m member) bool { return m.key == key })
	if i < 0 {
		return member{}, false
	}
	return o.members[i], true
}

// with returns the text with a value at the front of the list under its key.
func (o object) with(l listed) ([]byte, error) {
	m, ok := o.member(l.key)
	if !ok {
		return o.withKey(l), nil
	}
	items, ok := o.items(m)
	if !ok {
		return nil, fmt.Errorf("%s is not a list of strings", m.key)
	}
	value := fmt.Sprintf("%q", l.value)
	if len(items) == 0 {
		return o.replaced(m.value, "["+value+"]"), nil
	}
	for _, i := range items {
		if same(unquoted(o.text[i.from:i.to]), l.value) {
			return o.text, nil
		}
	}
	space := string(o.text[m.value.from+1 : items[0].from])
	if !strings.Contains(space, "\n") {
		space = " "
	}
	return o.replaced(span{items[0].from, items[0].from}, value+","+space), nil
}

// withKey returns the text with a new key at its end.
func (o object) withKey(l listed) []byte {
	entry := fmt.Sprintf("%q: [%q]", l.key, l.value)
	if len(o.members) == 0 {
		eol := lineEnd(o.text)
		open := bytes.IndexByte(o.text, '{')
		return o.replaced(span{open + 1, o.end}, eol+"  "+entry+eol)
	}
	last := o.members[len(o.members)-1]
	from := last.all.from
	for from > 0 && strings.IndexByte(" \t\r\n", o.text[from-1]) >= 0 {
		from--
	}
	space := string(o.text[from:last.all.from])
	if !strings.Contains(space, "\n") {
		space = " "
	}
	return o.replaced(span{last.all.to, last.all.to}, ","+space+entry)
}

// items are where the strings of a member's list stand. It reports false if the value is no
// list of strings.
func (o object) items(m member) (items []span, ok bool) {
	var values []string
	raw := o.text[m.value.from:m.value.to]
	if err := json.Unmarshal(raw, &values); err != nil || raw[0] != '[' {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	_, err := dec.Token() // the bracket
	for err == nil && dec.More() {
		from := next(raw, int(dec.InputOffset()))
		_, err = dec.Token()
		items = append(items, span{m.value.from + from, m.value.from + int(dec.InputOffset())})
	}
	return items, err == nil
}

func unquoted(raw []byte) (s any) {
	_ = json.Unmarshal(raw, &s) // what is no string stays nil
	return s
}

// replaced returns the text with something else in a span's place.
func (o object) replaced(s span, by string) []byte {
	return slices.Concat(o.text[:s.from], []byte(by), o.text[s.to:])
}

// without returns the text without one of several spans that have commas between them.
func (o object) without(all []span, i int) []byte {
	switch s := all[i]; {
	case i+1 < len(all):
		return o.replaced(span{s.from, all[i+1].from}, "")
	case i > 0:
		return o.replaced(span{all[i-1].to, s.to}, "")
	default:
		return o.replaced(s, "")
	}
}

// revertJSON takes from an object what distinguishes after from before in its lists, and the
// keys of lists that are left empty and were not there before. It leaves what else has changed.
// The result is nil if nothing is left of a file that was not there before.
func revertJSON(now, before, after []byte) ([]byte, error) {
	was := object{}
	if len(bytes.TrimSpace(before)) > 0 {
		var err error
		if was, err = readObject(before); err != nil {
			return nil, err
		}
	}
	wrote, err := readObject(after)
	if err != nil {
		return nil, err
	}
	for _, m := range wrote.members {
		if now, err = revertList(now, was, wrote, m); err != nil {
			return nil, err
		}
	}
	left, err := readObject(now)
	if err == nil && len(left.members) == 0 && before == nil {
		return nil, nil
	}
	return now, err
}

// revertList is revertJSON for one key that was written.
func revertList(now []byte, was, wrote object, m member) ([]byte, error) {
	old, known := was.member(m.key)
	values, ok := wrote.items(m)
	if !ok {
		return now, nil // no list of ours
	}
	var kept []span
	if known {
		kept, _ = was.items(old) // setup adds to lists only
	}
	var err error
	for _, v := range values {
		value, _ := unquoted(wrote.text[v.from:v.to]).(string) // items are strings
		if slices.ContainsFunc(kept, func(k span) bool { return same(unquoted(was.text[k.from:k.to]), value) }) {
			continue
		}
		if now, err = dropped(now, listed{m.key, value}, !known); err != nil {
			return nil, err
		}
	}
	return now, nil
}

// dropped returns an object without a value in a list. If the list is then empty, the key goes
// too if that is wished.
func dropped(text []byte, l listed, andKey bool) ([]byte, error) {
	o, err := readObject(text)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(o.members, func(m member) bool { return m.key == l.key })
	if at < 0 {
		return text, nil
	}
	items, ok := o.items(o.members[at])
	if !ok {
		return text, nil // others have made something else of it
	}
	i := slices.IndexFunc(items, func(s span) bool { return same(unquoted(o.text[s.from:s.to]), l.value) })
	if i < 0 {
		return text, nil
	}
	if len(items) == 1 && andKey {
		var all []span
		for _, m := range o.members {
			all = append(all, m.all)
		}
		return o.without(all, at), nil
	}
	return o.without(items, i), nil
}
