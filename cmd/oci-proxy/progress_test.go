package main

import (
	"fmt"
	"strings"
	"testing"
)

// On a terminal a bar counts what all members do, and is gone where a line stands and at the
// end; anywhere else there are lines.
func TestProgress(t *testing.T) {
	t.Parallel()
	for _, terminal := range []bool{false, true} {
		var out, err strings.Builder
		p, s := newProgress("blobs", streams{out: &out, err: &err}, terminal)
		p.at("node-1", part{2, 10}, "node-1: 2 of 10")
		p.at("node-2", part{3, 40}, "node-2: 3 of 40")
		fmt.Fprintln(s.out, "something")
		p.at("node-1", part{10, 10}, "node-1: 10 of 10")
		p.at("node-2", part{40, 40}, "node-2: 40 of 40")
		p.end()
		if out.String() != "something\n" {
			t.Errorf("%q", out.String())
		}
		if !terminal {
			if got := err.String(); got != "node-1: 2 of 10\nnode-2: 3 of 40\n" {
				t.Errorf("%q", got)
			}
			continue
		}
		got := err.String()
		for _, want := range []string{"blobs", "2/10", "5/50", "49/50"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in %q", want, got)
			}
		}
		if gone := "\x1b[2K\r"; !strings.HasSuffix(got, gone) || strings.Count(got, gone) < 2 || strings.Contains(got, "\n") || strings.Contains(got, " of ") {
			t.Errorf("%q", got)
		}
	}
}
