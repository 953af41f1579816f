package setup

import (
	"fmt"
	"path"
	"reflect"
	"slices"
)

// leaves is an error, a refusal, if a text can't do without what setup wrote into it: if its part has no
// end, or if what others wrote needs the part. now is the text, left is what is left of it, before is
// what it was before setup wrote.
func leaves(file string, now, left, before []byte) error {
	if parted(left) != nil {
		return refuse(fmt.Sprintf("the line %q that ends setup's part is gone. Put it back, or take that part away yourself", closes), "")
	}
	is, headers, err := says(file, now)
	if err != nil {
		return nil //nolint:nilerr // it was broken before: that keeps no part in
	}
	then, kept, err := says(file, left)
	was, _, _ := says(file, before) // nothing, if it was broken
	var needs string
	switch {
	case err != nil || !within(then, is):
		needs = "what others have added to it belongs to setup's part"
	case is["version"] != nil && then["version"] == nil && len(then) > 0:
		needs = "what others have added to it needs the version in setup's part"
	default:
		needs = staying(headers, kept, then, was)
	}
	if needs == "" {
		return nil
	}
	return refuse(fmt.Sprintf("%s. Take that part away yourself, from %q to %q, with what belongs to it", needs, opens, closes), "")
}

// staying tells of a table that setup's part opens and that others' settings would keep, without the
// part's own.
func staying(headers, kept []line, then, was map[string]any) string {
	for _, l := range headers {
		if _, ok := find(kept, true, l.path...); l.table && !ok && lookUp(then, l.path...) != nil && lookUp(was, l.path...) == nil {
			return fmt.Sprintf("what others have added to it belongs to the table [%s] in setup's part", header(l.path))
		}
	}
	return ""
}

// within reports whether every key of what is left was there, below the same keys, and every table of a
// list too: nothing has come to stand elsewhere.
func within(left, now any) bool {
	switch left := left.(type) {
	case map[string]any:
		now, ok := now.(map[string]any)
		for key, value := range left {
			was, there := now[key]
			ok = ok && there && within(value, was)
		}
		return ok
	case []any:
		now, ok := now.([]any)
		for _, value := range left {
			if _, table := value.(map[string]any); table {
				ok = ok && slices.ContainsFunc(now, func(v any) bool { return reflect.DeepEqual(v, value) })
			}
		}
		return ok
	}
	return true
}

// says is what a text says, of the kind that its file's name tells, and the lines of a TOML text.
func says(file string, text []byte) (all map[string]any, lines []line, err error) {
	switch path.Ext(file) {
	case ".toml", ".conf":
		return readTOML(text)
	case ".yaml":
		all, _, err = readYAML(text)
	}
	return all, nil, err
}
