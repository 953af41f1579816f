package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A place is where a value was set: in the file or in a variable. The zero place
// means a built-in default.
type place struct {
	line, column int    // from 1; 0 outside the file
	variable     string // of the environment
}

// String names the place inside the text of an error about another place.
func (p place) String() string {
	if p.variable != "" {
		return "environment " + p.variable
	}
	return fmt.Sprintf("line %d", p.line)
}

// A Problem is one thing that is wrong with the config.
type Problem struct {
	File         string // as it was given to Load; "" if Variable is set
	Line, Column int    // from 1
	Variable     string // environment variable that set the bad value, if one did
	Path         string // the key, levels joined by dots; "" for the file as a whole
	Text         string // what is wrong and what to do; never contains a secret
	Warning      bool   // it is only doubtful: the node starts with it
}

// Error returns `file:line:column: path.to.key: what is wrong`, or
// `environment NAME: what is wrong`. What is wrong begins with `warning: ` if it is
// only doubtful.
func (p Problem) Error() string {
	text := p.Text
	if p.Warning {
		text = "warning: " + text
	}
	switch {
	case p.Variable != "":
		return "environment " + p.Variable + ": " + text
	case p.Line == 0:
		return p.Path + ": " + text
	case p.Path == "":
		return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, text)
	default:
		return fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Line, p.Column, p.Path, text)
	}
}

// Problems is everything that is wrong with a config: first the file's problems
// in order of place, then the environment's in order of name. It is never empty.
type Problems []Problem

// Error returns one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the problems one by one.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// wrong reports whether anything is more than doubtful.
func (ps Problems) wrong() bool {
	return slices.ContainsFunc(ps, func(p Problem) bool { return !p.Warning })
}

func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Variable, b.Variable), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// A report knows where each value was set, and gathers what is wrong.
type report struct {
	file     string // as errors call it
	places   map[string]place
	problems Problems
}

// problem records that the value set at the place, for the key path, is wrong.
func (r *report) problem(at place, path, format string, args ...any) {
	r.add(at, Problem{Path: path, Text: fmt.Sprintf(format, args...)})
}

// warn records that the value set at the place, for the key path, is valid and most
// likely not what is meant.
func (r *report) warn(at place, path, format string, args ...any) {
	r.add(at, Problem{Path: path, Text: fmt.Sprintf(format, args...), Warning: true})
}

func (r *report) add(at place, p Problem) {
	if p.Variable = at.variable; p.Variable == "" {
		p.File, p.Line, p.Column = r.file, at.line, at.column
	}
	r.problems = append(r.problems, p)
}

// failed reports whether path already has a problem, warnings aside, so that its consequences
// need not be reported too.
func (r *report) failed(path string) bool {
	return slices.ContainsFunc(r.problems, func(p Problem) bool {
		return !p.Warning && (p.Path == path || strings.HasPrefix(p.Path, path+"["))
	})
}

// at returns where the first of paths that is set was set.
func (r *report) at(paths ...string) place {
	for _, path := range paths {
		if at, set := r.places[path]; set {
			return at
		}
	}
	return place{}
}

// isSet reports whether the operator set path, rather than left it to its default.
func (r *report) isSet(path string) bool {
	_, set := r.places[path]
	return set
}
