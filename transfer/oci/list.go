package oci

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Page is upstream's answer to a listing of tags or referrers, without its bytes:
// those go to a [Sink].
type Page struct {
	MediaType string
	Next      Query  // of the link to the next page, "" on the last page
	Filters   string // OCI-Filters-Applied
	By        Party  // who sent it
}

// A Sink takes the bytes of a page as they come. A *bytes.Buffer is one.
type Sink interface {
	io.Writer
	Reset() // what was written does not count: the page comes again from its beginning
}

// A Question is one to which the registry's last answer is kept: for a page of a list,
// or whether a repository has a tag.
type Question struct {
	Ref
	Query  Query    // of a list: selects the page
	Accept []string // of a tag: the Accept list, upon which some answers depend
}

// Resource returns what the question is about.
func (q Question) Resource() Resource {
	switch {
	case q.Tag != "":
		return ManifestResource
	case q.Digest != "":
		return ReferrersResource
	default:
		return TagsResource
	}
}

// What names the question among those about its repository. Two queries that differ
// in their order only have one name.
func (q Question) What() string {
	switch q.Resource() {
	case ManifestResource:
		return "manifests/" + q.Tag + " " + strings.Join(q.Accept, " ")
	case ReferrersResource:
		return "referrers/" + q.Digest.String() + "?" + q.Query.canonical()
	default:
		return "tags/list?" + q.Query.canonical()
	}
}

// Key names the question among all.
func (q Question) Key() string { return q.Registry + " " + q.Repository + " " + q.What() }

// errNoList: an answer is not what it should be.
var errNoList = errors.New("what came is not a list")

// CheckList reads a page of tags or referrers, and returns an error unless it can be
// one: a whole JSON object with the list's key, and no errors (OCI distribution spec,
// "Listing Tags" and "Listing Referrers"). It holds little of it in memory.
func CheckList(r io.Reader, of Resource) error {
	keys, err := topKeys(bufio.NewReader(r))
	if err != nil {
		return err
	}
	list, rest := "tags", []string{"name"} // some leave an empty list out
	if of == ReferrersResource {
		list, rest = "manifests", []string{"schemaVersion", "mediaType", "annotations"}
	}
	if keys["errors"] || !keys[list] && !empty(keys, rest) {
		return fmt.Errorf("%w: it has no %s", errNoList, list)
	}
	return nil
}

// empty reports whether keys are those of a list without entries: the first of rest, and
// none but those of rest.
func empty(keys map[string]bool, rest []string) bool {
	for key := range keys {
		if !slices.Contains(rest, key) {
			return false
		}
	}
	return keys[rest[0]]
}

// What is looked at of keys: so many, of so many bytes each.
const (
	maxKeys = 100
	maxKey  = 32
)

// topKeys returns the keys of a JSON object, if that is whole. It looks at strings and
// brackets alone.
func topKeys(r *bufio.Reader) (map[string]bool, error) {
	s := scan{keys: map[string]bool{}}
	for {
		c, err := r.ReadByte()
		switch {
		case errors.Is(err, io.EOF) && s.ended:
			return s.keys, nil
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%w: it is cut off, or no JSON object", errNoList)
		case err != nil:
			return nil, err
		}
		if !s.next(c) {
			return nil, fmt.Errorf("%w: it is no JSON object", errNoList)
		}
		if len(s.keys) > maxKeys {
			return nil, fmt.Errorf("%w: it has too many keys", errNoList)
		}
		if s.quoted && !s.escape {
			s.skip(r)
		}
	}
}

// A scan is how far a JSON object is read.
type scan struct {
	keys   map[string]bool
	open   []byte // the brackets that are open
	quoted bool   // within a string
	escape bool   // after a backslash in it
	value  bool   // of the outermost object: after a key's colon
	text   []byte // of the string that is being read, or was last
	ended  bool
}

// maxDepth bounds how many brackets may be open.
const maxDepth = 64

// next takes a byte, and reports false if it can't stand there.
func (s *scan) next(c byte) bool {
	if s.quoted {
		s.inString(c)
		return true
	}
	top := len(s.open) == 1
	switch c {
	case ' ', '\t', '\r', '\n':
		return true
	case '{', '[':
		if s.ended || len(s.open) == 0 && c != '{' || len(s.open) == maxDepth {
			return false
		}
		s.open = append(s.open, c)
	case '}', ']':
		if len(s.open) == 0 || s.open[len(s.open)-1] != c-2 { // { and }, [ and ] are two apart
			return false
		}
		s.open = s.open[:len(s.open)-1]
		s.ended = len(s.open) == 0
	case '"':
		s.quoted, s.text = true, s.text[:0]
	case ':':
		if top && !s.value {
			s.keys[string(s.text)], s.value = true, true
		}
	case ',':
		s.value = s.value && !top
	}
	return len(s.open) > 0 || s.ended && c == '}'
}

// inString takes a byte of a string.
func (s *scan) inString(c byte) {
	switch {
	case s.escape:
		s.escape = false
	case c == '\\':
		s.escape = true
	case c == '"':
		s.quoted = false
		return
	}
	if len(s.text) < maxKey {
		s.text = append(s.text, c)
	}
}

// skip takes what r has at hand of a string, before its end and the next backslash. Most
// of a list are strings.
func (s *scan) skip(r *bufio.Reader) {
	plain, _ := r.Peek(r.Buffered()) // of what is buffered nothing is missing
	if i := bytes.IndexByte(plain, '"'); i >= 0 {
		plain = plain[:i]
	}
	if i := bytes.IndexByte(plain, '\\'); i >= 0 {
		plain = plain[:i]
	}
	s.text = append(s.text, plain[:min(len(plain), maxKey-len(s.text))]...)
	_, _ = r.Discard(len(plain))
}
