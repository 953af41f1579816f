package node

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

const (
	doublesDoc   = "../docs/registries.md"
	doublesBegin = "<!-- doubles: written by go test ./node -run TestDoublesDoc -update -->\n"
	doublesEnd   = "<!-- end of doubles -->\n"
)

var update = flag.Bool("update", false, "write the table of doubles into docs/registries.md")

// The table in docs/registries.md is that of the doubles.
func TestDoublesDoc(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(doublesDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(doc), doublesBegin)
	_, after, ended := strings.Cut(rest, doublesEnd)
	if !begun || !ended {
		t.Fatalf("%s lacks the marks %q and %q", doublesDoc, doublesBegin, doublesEnd)
	}
	want := before + doublesBegin + doublesTable() + doublesEnd + after
	if want == string(doc) {
		return
	}
	if !*update {
		t.Fatalf("%s differs from the doubles; run: go test ./node -run TestDoublesDoc -update", doublesDoc)
	}
	if err := os.WriteFile(doublesDoc, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
}

// doublesTable returns the table of doubles for readers.
func doublesTable() string {
	var out strings.Builder
	out.WriteString("\n| registry | what is odd | test |\n|---|---|---|\n")
	for _, d := range doubles() {
		var odd []string
		if d.path != "" {
			odd = append(odd, "its API is below `"+d.path+"`")
		}
		if d.user != "" {
			odd = append(odd, "user `"+d.user+"`")
		}
		if d.guests {
			odd = append(odd, "guests pull, too")
		}
		if d.rotating {
			odd = append(odd, "a password that ends")
		}
		if d.config != "" {
			odd = append(odd, "needs `"+d.config+"`")
		}
		for _, m := range d.manners {
			odd = append(odd, m.says)
		}
		fmt.Fprintf(&out, "| %s (`%s`) | %s | `TestDoubles/%s` |\n", d.name, d.host, strings.ReplaceAll(strings.Join(odd, "; "), "|", "\\|"), strings.ReplaceAll(d.name, " ", "_"))
	}
	out.WriteString("\n")
	return out.String()
}
