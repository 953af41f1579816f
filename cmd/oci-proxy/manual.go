package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"oci-proxy/node/config"
)

// manual prints the manual page in roff, as man(7) has it.
func manual(_ context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("man", flag.ContinueOnError)
	if err := parse(fl, args, s); err != nil {
		return err
	}
	writeManual(s.out)
	return nil
}

// writeManual writes the manual page of all commands.
func writeManual(w io.Writer) {
	fmt.Fprintf(w, ".TH OCI-PROXY 1 \"\" \"oci-proxy %s\" \"User Commands\"\n", roff(build().version))
	fmt.Fprint(w, ".SH NAME\noci-proxy \\- caching proxy mesh for OCI and Docker registries\n")
	fmt.Fprint(w, ".SH SYNOPSIS\n.B oci-proxy\n[command] [flags]\n")
	fmt.Fprint(w, ".SH COMMANDS\n")
	for _, c := range commands() {
		fmt.Fprintf(w, ".SS %s\n%s\n.PP\nExample:\n.PP\n.RS\n.nf\n%s\n.fi\n.RE\n", roff(synopsis(c, flagsOf(c))), roff(sentence(c.does)), roff(c.example))
		for _, f := range told(c) {
			fmt.Fprintf(w, ".TP\n.BI \\-%s", roff(f.name))
			if f.value != "" {
				fmt.Fprintf(w, " \" %s\"", roff(f.value))
			}
			fmt.Fprintf(w, "\n%s\n", roff(sentence(f.does)))
		}
	}
	fmt.Fprint(w, ".SH EXIT STATUS\n0: done. 1: failed while running. 2: bad usage or bad config.\n")
	fmt.Fprintf(w, ".SH ENVIRONMENT\n.TP\n.B %s\nThe config file, where\n.B \\-c\nnames none.\n.TP\n.B OCI_PROXY_\\fIKEY\\fR\nAny key of the config but those under registries: its path in capitals, levels joined by two underscores.\n", config.FileVariable)
}

// roff escapes text for roff.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`, "…", "...").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
