package holdings

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// header begins the text of an inventory.
const header = "oci-proxy holdings 1"

// errText: the text is no inventory.
var errText = errors.New("what it holds is told in a way that can't be read")

// Encode writes an inventory as text: a line for each thing, whose first letter says what
// it is. What a manifest lists follows it.
func (v *Inventory) Encode() []byte {
	w := &writer{b: make([]byte, 0, 64+128*(len(v.Blobs)+len(v.Tags)+8*len(v.Manifests)))}
	w.line(header)
	for _, b := range v.Blobs {
		w.line("b", string(b.Digest), word(b.Registry), number(b.Size), number(seconds(b.Used)), flag(b.Pinned))
	}
	for _, m := range v.Manifests {
		w.line("m", string(m.Digest), word(m.Repository), word(m.MediaType), word(m.Platform))
		for _, l := range m.Lists {
			w.line("l", string(l.Digest), number(l.Size), flag(l.Manifest), flag(l.Config), word(l.Platform))
		}
	}
	for _, t := range v.Tags {
		w.line("t", string(t.Digest), number(seconds(t.Checked)), strings.ReplaceAll(t.Key, "\n", ""))
	}
	for _, p := range v.Pins {
		w.line("p", strings.ReplaceAll(p, "\n", ""))
	}
	return w.b
}

// A writer writes lines.
type writer struct{ b []byte }

// line writes words.
func (w *writer) line(words ...string) {
	for i, s := range words {
		if i > 0 {
			w.b = append(w.b, ' ')
		}
		w.b = append(w.b, s...)
	}
	w.b = append(w.b, '\n')
}

// word is a word that is not empty and has no space.
func word(s string) string {
	if s == "" || strings.ContainsAny(s, " \n\r\t") {
		return "-"
	}
	return s
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// seconds is a time in unix seconds, 0 for none.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// Decode reads what Encode wrote.
func Decode(text []byte) (*Inventory, error) {
	first, rest, _ := strings.Cut(string(text), "\n")
	if first != header {
		return nil, errText
	}
	v := &Inventory{}
	for n := 2; rest != ""; n++ {
		line, after, _ := strings.Cut(rest, "\n")
		rest = after
		r := reader{rest: line}
		v.read(&r)
		if r.bad {
			return nil, fmt.Errorf("%w: line %d", errText, n)
		}
	}
	return v, nil
}

// read reads a line. Of a later version it may be of an unknown kind.
func (v *Inventory) read(r *reader) {
	switch r.next() {
	case "b":
		v.Blobs = append(v.Blobs, Blob{Digest: r.digest(), Registry: r.word(), Size: r.number(), Used: r.time(), Pinned: r.flag()})
	case "m":
		v.Manifests = append(v.Manifests, Manifest{Digest: r.digest(), Repository: r.word(), MediaType: r.word(), Platform: r.word()})
	case "l":
		l := oci.Listed{Digest: r.digest(), Size: r.number(), Manifest: r.flag(), Config: r.flag(), Platform: r.word()}
		if len(v.Manifests) == 0 {
			r.bad = true
			return
		}
		m := &v.Manifests[len(v.Manifests)-1]
		m.Lists = append(m.Lists, l)
	case "t":
		v.Tags = append(v.Tags, Tag{Digest: r.digest(), Checked: r.time(), Key: r.rest})
	case "p":
		v.Pins = append(v.Pins, r.rest)
	}
}

// A reader reads the words of a line.
type reader struct {
	rest string
	bad  bool
}

func (r *reader) next() string {
	word, rest, _ := strings.Cut(r.rest, " ")
	r.rest = rest
	return word
}

func (r *reader) word() string {
	if w := r.next(); w != "-" {
		return w
	}
	return ""
}

// digest reads one that can be verified.
func (r *reader) digest() digest.Digest {
	d := digest.Digest(r.next())
	if d.Validate() != nil {
		r.bad = true
	}
	return d
}

// number reads one that is not negative.
func (r *reader) number() int64 {
	n, err := strconv.ParseInt(r.next(), 10, 64)
	if err != nil || n < 0 {
		r.bad = true
	}
	return n
}

func (r *reader) time() time.Time {
	if n := r.number(); n > 0 {
		return time.Unix(n, 0)
	}
	return time.Time{}
}

func (r *reader) flag() bool { return r.next() == "1" }
