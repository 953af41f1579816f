package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// doctorTimeout is how long a node may take to look at everything: each member looks for
// 20 seconds at most.
const doctorTimeout = time.Minute

// doctor asks a node to look at itself and its cluster, or at the way to a registry, and
// prints what each member saw.
func doctor(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("doctor", flag.ContinueOnError)
	file, addr := nodeFlags(fl)
	raw := jsonFlag(fl, "`json` for the node's own lines of JSON")
	targets, err := parseMixed(fl, args, s)
	if err != nil {
		return err
	}
	if len(targets) > 1 {
		return badUsage(s, "usage: oci-proxy doctor [flags] [REGISTRY or IMAGE]")
	}
	t, err := targetOf(*file, *addr, s)
	if err != nil {
		return err
	}
	what := map[string]string{"target": ""}
	if len(targets) == 1 {
		what["target"] = targets[0]
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	return askDoctor(ctx, t, what, *raw, s)
}

// A diagnosis is a line of the answer to /_/doctor.
type diagnosis struct {
	Node, About, Step, Level, Text, Advice string
	TookMS                                 int64 `json:"took_ms"`
	Done                                   bool
	Failed, Warnings                       int
}

// askDoctor asks the node, and prints its lines as they come.
func askDoctor(ctx context.Context, t target, what any, raw bool, s streams) error {
	var last diagnosis
	return t.lines(ctx, "look", "/_/doctor", what, func(one json.RawMessage) (bool, error) {
		var line diagnosis
		if err := json.Unmarshal(one, &line); err != nil {
			return true, fmt.Errorf("reading the answer of %s: %w", t.addr, err)
		}
		switch {
		case raw:
			fmt.Fprintf(s.out, "%s\n", one)
		case !line.Done:
			line.print(s.out, last)
		}
		last = line
		if line.Done {
			return true, line.verdict(raw, s)
		}
		return false, nil
	})
}

// print prints a line, below a heading if it is of another node than the last.
func (l diagnosis) print(w io.Writer, last diagnosis) {
	if l.Node != last.Node || last.Step == "" {
		fmt.Fprintln(w, cmp.Or(l.Node, "the cluster")+":")
	}
	text := l.Text
	if l.Step == "registry" { // of several
		text = l.About + ": " + text
	}
	if l.TookMS > 0 {
		text += fmt.Sprintf(" (%d ms)", l.TookMS)
	}
	lead := fmt.Sprintf("  %-7s  %-8s  ", l.Level, l.Step)
	for i, line := range wrapped(text, statusWidth-utf8.RuneCountInString(lead), "") {
		if i > 0 {
			lead = fmt.Sprintf("  %-7s  %-8s  ", "", "")
		}
		fmt.Fprintln(w, lead+line)
	}
	if l.Advice != "" {
		for _, line := range wrapped("what to do: "+l.Advice, statusWidth-21, "") {
			fmt.Fprintf(w, "%21s%s\n", "", line)
		}
	}
}

// verdict prints how it all went. The error says that something failed.
func (l diagnosis) verdict(raw bool, s streams) error {
	if l.Failed > 0 {
		return fmt.Errorf("%d steps failed", l.Failed)
	}
	if !raw {
		fmt.Fprintf(s.out, "nothing failed%s\n", map[bool]string{true: fmt.Sprintf("; warnings: %d", l.Warnings)}[l.Warnings > 0])
	}
	return nil
}
