package upstream

import (
	"net/http"
	"strings"
)

// Limits of WWW-Authenticate. Anybody's registry may send it.
const (
	maxChallengeBytes = 8 << 10
	maxChallenges     = 16
)

// A challenge is one way to be let in that a 401 offers.
type challenge struct {
	scheme string            // in lower case
	params map[string]string // names in lower case, values as they came
}

// challengesOf returns the challenges of an answer, in order.
func challengesOf(h http.Header) []challenge {
	var list []challenge
	for _, v := range h.Values("WWW-Authenticate") {
		list = append(list, parseChallenges(v)...)
	}
	return list[:min(len(list), maxChallenges)]
}

// parseChallenges reads one WWW-Authenticate value (RFC 9110, 11.6.1). Commas
// separate both parameters and challenges, so a word is a parameter's name if "="
// follows, else a scheme. It accepts what registries get wrong: unquoted URLs,
// missing commas, a quote that is not closed.
func parseChallenges(value string) (list []challenge) {
	s := scanner{value[:min(len(value), maxChallengeBytes)]}
	for len(list) <= maxChallenges {
		s.skip(" \t,")
		word := s.until(" \t,=\"")
		switch {
		case word == "" && s.rest == "":
			return list
		case word == "": // a stray = or ": skip it
			s.rest = s.rest[1:]
		case !s.param():
			list = append(list, challenge{strings.ToLower(strings.Clone(word)), map[string]string{}})
		default:
			v := s.value(" \t,")
			if len(list) == 0 {
				continue
			}
			params := list[len(list)-1].params
			if name := strings.ToLower(word); params[name] == "" {
				params[strings.Clone(name)] = strings.Clone(v) // they are kept, and the header is not
			}
		}
	}
	return list
}

// A scanner eats the value of a header from the front.
type scanner struct{ rest string }

// skip eats any of chars.
func (s *scanner) skip(chars string) { s.rest = strings.TrimLeft(s.rest, chars) }

// until eats and returns everything before the first of chars.
func (s *scanner) until(chars string) string {
	i := strings.IndexAny(s.rest, chars)
	if i < 0 {
		i = len(s.rest)
	}
	word := s.rest[:i]
	s.rest = s.rest[i:]
	return word
}

// param eats an equals sign and the spaces around it, and reports whether there was
// one.
func (s *scanner) param() bool {
	after, ok := strings.CutPrefix(strings.TrimLeft(s.rest, " \t"), "=")
	if ok {
		s.rest = strings.TrimLeft(after, " \t")
	}
	return ok
}

// value eats a parameter's value: quoted, or up to the first of ends.
func (s *scanner) value(ends string) string {
	if !strings.HasPrefix(s.rest, `"`) {
		return s.until(ends)
	}
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			s.rest = s.rest[i+1:]
			return b.String()
		case c == '\\' && i+1 < len(s.rest):
			i++
			b.WriteByte(s.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	s.rest = ""
	return b.String()
}
