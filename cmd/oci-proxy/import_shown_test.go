package main

import (
	"bytes"
	"strings"
	"testing"
)

// Names are written by whoever made the file: none of them reaches the terminal as a command to it.
func TestImportObeysNoName(t *testing.T) {
	t.Parallel()
	const name = `ghcr.io/a/\u001b[31m\u009b1m\u202e\nx:v1`
	for _, line := range []string{`{"image":"` + name + `","digest":"` + name + `"}`, `{"image":"` + name + `","error":"` + name + `"}`, `{"done":true,"error":"` + name + `"}`} {
		var out, errs bytes.Buffer
		err := printImported(strings.NewReader(line+`{"done":true}`), "node", streams{out: &out, err: &errs})
		said := strings.TrimSuffix(out.String(), "imported: 0 images, 0b\n") + errs.String()
		if err != nil {
			said += err.Error()
		}
		if strings.ContainsAny(said, "\u001b\u009b\u202e") || strings.Contains(said, "\nx:v1") || !strings.Contains(said, "ghcr.io/a/") {
			t.Errorf("%s: %q", line, said)
		}
	}
}
