package testkit

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write generated tables into the documents")

// Document fails the test unless a document has that table where the code's table of that
// name belongs: between "<!-- NAME: written by COMMAND -->", where the command is go test with
// -update, and "<!-- end of NAME -->". With the flag -update it writes the table.
func Document(t testing.TB, file, name, table string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(text), "<!-- "+name+": written by ")
	command, rest, told := strings.Cut(rest, " -->\n")
	_, after, ended := strings.Cut(rest, "<!-- end of "+name+" -->\n")
	if !begun || !told || !ended || !strings.HasSuffix(command, " -run "+t.Name()+" -update") {
		t.Fatalf("%s lacks the marks of %s, with the command that writes it: %q", file, name, command)
	}
	want := before + "<!-- " + name + ": written by " + command + " -->\n" + table + "<!-- end of " + name + " -->\n" + after
	switch {
	case want == string(text):
	case !*update:
		t.Fatalf("%s differs from the code; run: %s", file, command)
	default:
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil { // #nosec G703 -- the test names the file
			t.Fatal(err)
		}
	}
}
