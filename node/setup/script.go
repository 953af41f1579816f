package setup

import (
	_ "embed"
	"fmt"
	"strings"
)

//go:embed merge.sh
var scriptMerge string

//go:embed write.sh
var scriptWrite string

//go:embed setup.sh
var scriptBody string

// quote makes a text one word of a shell (POSIX, section 2.2.2).
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Script returns a POSIX shell script that does what the plan says: it shows what changes and
// writes it, with -n it only shows, with -undo it takes back. It merges JSON where the
// machine has python3 or jq, and changes nothing where it can't merge. If a file can't be written, or
// somebody stops it, all is put back. Nothing runs before the shell has read all of it.
func (p Plan) Script() []byte {
	var s strings.Builder
	fmt.Fprintf(&s, "#!/bin/sh\n# Makes %s pull through %s. Run it by: %s -s -- -n\n", p.Client, p.Endpoint, p.Command)
	s.WriteString("# -n only shows what would change, -undo takes it back, -root FOLDER is another root than /.\nset -eu\n\n")
	for _, v := range [][2]string{{"client", p.Client}, {"endpoint", p.Endpoint}, {"dir", clientNamed(p.Client).dir}, {"restart", p.Restart}} {
		fmt.Fprintf(&s, "%s=%s\n", v[0], quote(v[1]))
	}
	s.WriteString("\nplan() {\n")
	for _, f := range p.Files {
		s.WriteString("  plan_file " + f.shell() + "\n")
	}
	s.WriteString("}\n\nnotes() {\n  :\n")
	for _, n := range p.Notes {
		s.WriteString("  say " + quote("- "+n) + "\n")
	}
	s.WriteString("}\n\n" + scriptMerge + scriptWrite + scriptBody)
	return []byte(s.String())
}

// shell is how the script is told of a file.
func (f File) shell() string {
	kind, more := "plain", ""
	switch p := f.part.(type) {
	case daemonJSON:
		kind = "json"
		for _, l := range p.lists() {
			more += " " + quote(l.key) + " " + quote(l.value)
		}
	case configPath:
		kind = "config_path"
	}
	return kind + " " + quote(f.Path) + " " + quote(strings.TrimSuffix(f.Content, "\n")) + more
}
