package node

import (
	"fmt"
	"strings"
	"testing"

	"oci-proxy/transfer/testkit"
)

// The table in docs/registries.md is that of the doubles.
func TestDoublesDoc(t *testing.T) {
	t.Parallel()
	testkit.Document(t, "../docs/registries.md", "doubles", doublesTable())
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
