package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// commandNamed returns the command of that name.
func commandNamed(name string) (command, bool) {
	all := commands()
	i := slices.IndexFunc(all, func(c command) bool { return c.name == name })
	if i < 0 {
		return command{}, false
	}
	return all[i], true
}

// usage prints the commands.
func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: oci-proxy [command] [flags]")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.does)
	}
	fmt.Fprintln(w, "Run oci-proxy COMMAND -h for the flags of a command and an example.")
}

// help prints the commands, or the help of the one that args name. It returns the exit
// status.
func help(ctx context.Context, args []string, s streams) int {
	if len(args) == 0 {
		usage(s.out)
		return exitDone
	}
	return run(ctx, []string{args[0], "-h"}, s)
}

// helpOf prints the help of the command that has these flags.
func helpOf(fl *flag.FlagSet, w io.Writer) {
	c, _ := commandNamed(fl.Name())
	fmt.Fprintf(w, "usage: %s\n\n%s\n\nexample:\n  %s\n", synopsis(c, fl), sentence(c.does), c.example)
	if hasFlags(fl) {
		fmt.Fprintln(w, "\nflags:")
		fl.SetOutput(w)
		fl.PrintDefaults()
	}
}

// synopsis is how a command is called.
func synopsis(c command, fl *flag.FlagSet) string {
	text := "oci-proxy " + c.name
	if hasFlags(fl) {
		text += " [flags]"
	}
	if c.args != "" {
		text += " " + c.args
	}
	return text
}

// hasFlags reports whether there are any.
func hasFlags(fl *flag.FlagSet) (has bool) {
	fl.VisitAll(func(*flag.Flag) { has = true })
	return has
}

// sentence makes a sentence of what a command does.
func sentence(does string) string {
	first, size := utf8.DecodeRuneInString(does)
	return string(unicode.ToUpper(first)) + does[size:] + "."
}

// flagsOf returns the flags that a command defines. It does not run the command.
func flagsOf(c command) *flag.FlagSet {
	found := flag.NewFlagSet(c.name, flag.ContinueOnError)
	s := streams{out: io.Discard, err: io.Discard, flags: func(fl *flag.FlagSet) { found = fl }}
	_ = c.run(context.Background(), nil, s) // parseFlags ends it by flag.ErrHelp
	return found
}

// A told flag is a flag as completion and the manual show it.
type toldFlag struct {
	name  string
	value string // what its value is, in a word; "": it has none
	does  string // in one line
}

// told returns the flags of a command in order.
func told(c command) (all []toldFlag) {
	flagsOf(c).VisitAll(func(f *flag.Flag) {
		value, does := flag.UnquoteUsage(f)
		all = append(all, toldFlag{f.Name, value, strings.Join(strings.Fields(does), " ")})
	})
	return all
}
