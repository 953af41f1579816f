package upstream

import (
	"net/url"
	"path"
	"slices"
	"strings"

	"oci-proxy/transfer/oci"
)

// A link is one of a Link header (RFC 8288 section 3).
type link struct {
	target string
	rel    string // in lower case
	plain  bool   // it has no rel
}

// isNext reports whether the link may be that to the next page. Some registries leave
// out rel, and most clients do not look at it.
func (l link) isNext() bool { return l.plain || slices.Contains(strings.Fields(l.rel), "next") }

// linksOf reads Link headers. It accepts what registries get wrong: a target without
// angle brackets or with one, and quotes of any kind.
func linksOf(headers []string) (list []link) {
	for _, h := range headers {
		for s := (scanner{h}); ; {
			s.skip(" \t,;")
			if s.rest == "" {
				break
			}
			l := link{target: linkTarget(&s), plain: true}
			linkParams(&s, &l)
			list = append(list, l)
		}
	}
	return list
}

// linkTarget eats the target of a link. One without brackets ends with a semicolon, or
// with a comma that a space or another link follows.
func linkTarget(s *scanner) string {
	after, bracketed := strings.CutPrefix(s.rest, "<")
	if target, rest, ok := strings.Cut(after, ">"); bracketed && ok {
		s.rest = rest
		return strings.TrimSpace(target)
	}
	end := strings.IndexByte(after, ';')
	if end < 0 {
		end = len(after)
	}
	for _, next := range []string{", ", ",\t", ",<"} {
		if i := strings.Index(after[:end], next); i >= 0 {
			end = i
		}
	}
	s.rest = after[end:]
	return strings.Trim(after[:end], " \t\"'>")
}

// linkParams eats a link's parameters, up to the comma before the next link.
func linkParams(s *scanner, l *link) {
	for {
		s.skip(" \t;")
		if s.rest == "" || s.rest[0] == ',' || s.rest[0] == '<' {
			return
		}
		name := s.until(" \t,;=<")
		if !s.param() {
			if name == "" {
				s.rest = s.rest[1:]
			}
			continue
		}
		value := strings.Trim(s.value(" \t,;"), "'")
		if strings.EqualFold(name, "rel") && l.plain { // a second rel does not count
			l.rel, l.plain = strings.ToLower(value), false
		}
	}
}

// next returns the query of the page that follows the answer to a, "" if there is none.
// A link that this node can't pass on in its own path is an error: the client would take
// what it has for the whole list, or go round in circles.
func (ans *answer) next(a ask) (oci.Query, *failure) {
	for _, l := range linksOf(ans.resp.Header.Values("Link")) {
		if !l.isNext() {
			continue
		}
		query, wrong := ans.follow(a, l.target)
		if wrong == "" {
			return query, nil
		}
		if !l.plain { // one without rel that does not lead to a page is about something else
			return "", ans.wrong(oci.Corrupt, never, "the link to the next page "+wrong)
		}
	}
	return "", nil
}

// follow returns the query of a link to the next page, or what is wrong with the link.
func (ans *answer) follow(a ask, target string) (_ oci.Query, wrong string) {
	u, err := ans.url.Parse(target)
	if err != nil || u.Host == "" {
		return "", "can't be read"
	}
	query := oci.ListQuery(u.RawQuery)
	switch {
	case !ans.home.isNamedBy(u) && hostPort(u) != hostPort(ans.url):
		return "", "leads to another host: " + printable(shown(u))
	case !sameList(u.Path, ans.url.Path, "/"+a.repo+"/"+a.path):
		return "", "leads to another list: " + printable(u.Path)
	case len(query) > oci.MaxQuery:
		return "", "is too long"
	case query.Same(a.query) || query == "":
		return "", "leads back to a page before it: the list would never end"
	}
	return query, ""
}

// sameList reports whether a link's path is that of the list: the one that answered, or
// the list's own path, perhaps below a prefix that the registry has behind a proxy.
func sameList(linked, answered, list string) bool {
	linked = strings.TrimSuffix(path.Clean("/"+linked), "/")
	if linked == answered || strings.HasSuffix(linked, "/v2"+list) {
		return true
	}
	return strings.HasSuffix(linked, list) && !strings.Contains(linked, "/v2/")
}

// isNamedBy reports whether u is the registry's own, as registries behind a proxy name
// themselves: with another scheme, and perhaps without their port.
func (h *home) isNamedBy(u *url.URL) bool {
	own := (&url.URL{Host: h.host}).Port()
	standard := u.Port() == "" || own == "" && (u.Port() == "443" || u.Port() == "80")
	return strings.EqualFold(u.Hostname(), h.name) && (standard || u.Port() == own)
}
