package setup

import (
	"bytes"
	"strings"
)

// Marks stand around what setup has written into a text that has comments, so that it can be
// told from what others wrote there. A line that had to give way stands in the marked part,
// behind was.
const (
	opens  = "# >>> oci-proxy setup"
	closes = "# <<< oci-proxy setup"
	was    = "# was: "
)

// marked puts marks around lines.
func marked(lines ...string) string {
	return opens + "\n" + strings.Join(lines, "\n") + "\n" + closes + "\n"
}

// unmarked returns a text without marked parts, and with the lines that gave way to them. A
// part without an end stays.
func unmarked(text []byte) []byte {
	var kept, part, before bytes.Buffer
	inside := false
	for line := range bytes.Lines(text) {
		bare := strings.TrimSpace(string(line))
		switch {
		case bare == opens:
			kept.Write(part.Bytes())
			inside = true
			part.Reset()
			before.Reset()
			part.Write(line)
		case !inside:
			kept.Write(line)
		case bare == closes:
			inside = false
			kept.Write(before.Bytes())
			part.Reset()
		default:
			part.Write(line)
			if _, old, ok := bytes.Cut(line, []byte(was)); ok && strings.HasPrefix(bare, strings.TrimSpace(was)) {
				before.Write(old)
			}
		}
	}
	kept.Write(part.Bytes())
	return kept.Bytes()
}

// insert puts lines, which end with \n each, into a text at an offset where a line begins, or
// at its end. The lines get the text's own line ends.
func insert(text []byte, at int, lines string) []byte {
	eol := lineEnd(text)
	if eol != "\n" {
		lines = strings.ReplaceAll(lines, "\n", eol)
	}
	head := text[:at:at]
	if at == len(text) && at > 0 && text[at-1] != '\n' {
		head = append(head, eol...)
	}
	return append(append(head, lines...), text[at:]...)
}

// lineEnd is how lines of a text end.
func lineEnd(text []byte) string {
	if i := bytes.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// lineStart is where the line begins that an offset is in.
func lineStart(text []byte, at int) int { return bytes.LastIndexByte(text[:at], '\n') + 1 }

// nextLine is where the line begins behind the one that an offset is in.
func nextLine(text []byte, at int) int {
	if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(text)
}
