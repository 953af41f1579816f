package main

import (
	"errors"
	"flag"
	"os/exec"
	"strings"
	"testing"
)

// Each command's -h has a sentence, an example of that command, and its flags; and each
// flag of the example is one of them.
func TestHelpOfEachCommand(t *testing.T) {
	t.Parallel()
	for _, c := range commands() {
		got := call(t.Context(), c.name, "-h")
		if got.status != exitDone || got.err != "" || call(t.Context(), "help", c.name) != got {
			t.Errorf("%s: %+v", c.name, got)
		}
		wantIn(t, got.out, "usage: oci-proxy "+c.name, "\n"+sentence(c.does)+"\n", "example:\n  "+c.example+"\n")
		if !strings.Contains(c.example, "oci-proxy "+c.name) {
			t.Errorf("%s: the example is of another command: %s", c.name, c.example)
		}
		flags := flagsOf(c)
		for _, f := range told(c) {
			wantIn(t, got.out, "\n  -"+f.name)
		}
		call, _, _ := strings.Cut(c.example, " | ") // what follows is of another program
		for word := range strings.FieldsSeq(call) {
			if name, is := strings.CutPrefix(word, "-"); is && name != "" && flags.Lookup(name) == nil {
				t.Errorf("%s: its example has -%s, which is no flag of it", c.name, name)
			}
		}
	}
}

// Asking for the flags of a command does not run it.
func TestFlagsOfRunsNothing(t *testing.T) {
	t.Parallel()
	for _, c := range commands() {
		name := ""
		err := c.run(t.Context(), nil, streams{out: t.Output(), err: t.Output(), flags: func(fl *flag.FlagSet) { name = fl.Name() }})
		if name != c.name || !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s: the flags are of %q, %v", c.name, name, err)
		}
	}
}

// bash completes commands, flags, and what a flag or a command takes.
func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	script := call(t.Context(), "completion", "bash")
	for words, want := range map[string]string{
		"st":            "status",
		"":              "serve",
		"-p":            "-port",
		"status -a":     "-addr",
		"warm -o ":      "json",
		"completion z":  "zsh",
		"status -c ":    "", // the shell's own: files
		"nonsense -add": "",
	} {
		ask := script.out + "\nCOMP_WORDS=(oci-proxy " + words + ")\n"
		if strings.HasSuffix(words, " ") || words == "" {
			ask += "COMP_WORDS+=('')\n"
		}
		ask += "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _oci_proxy; echo \"${COMPREPLY[*]}\""
		out, err := exec.CommandContext(t.Context(), bash, "-c", ask).CombinedOutput()
		got := strings.Fields(string(out))
		if err != nil || want == "" && len(got) > 0 || want != "" && (len(got) == 0 || got[0] != want) {
			t.Errorf("%q: %q, %v; want %q", words, got, err, want)
		}
	}
}

// The scripts for all shells name every command and every flag.
func TestCompletionNamesEverything(t *testing.T) {
	t.Parallel()
	for shell, form := range map[string]func(c command, f toldFlag) string{
		"bash": func(c command, f toldFlag) string { return "-" + f.name },
		"zsh":  func(c command, f toldFlag) string { return "'-" + f.name + "[" },
		"fish": func(c command, f toldFlag) string { return "'__fish_seen_subcommand_from " + c.name + "' -" },
	} {
		got := call(t.Context(), "completion", shell)
		for _, c := range commands() {
			wantIn(t, got.out, c.name)
			for _, f := range told(c) {
				wantIn(t, got.out, form(c, f))
			}
		}
	}
	for _, args := range []string{"completion", "completion tcsh", "completion bash zsh"} {
		if got := call(t.Context(), strings.Fields(args)...); got.status != exitUsage || !strings.Contains(got.err, "bash|zsh|fish") {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

// The manual page has each command with its flags, and roff has no complaint.
func TestManual(t *testing.T) {
	t.Parallel()
	got := call(t.Context(), "man")
	for _, c := range commands() {
		wantIn(t, got.out, "\n.SS "+roff(synopsis(c, flagsOf(c)))+"\n", "\n"+roff(c.example)+"\n")
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		return
	}
	cmd := exec.CommandContext(t.Context(), groff, "-man", "-Tascii", "-P-cbou", "-ww")
	cmd.Stdin = strings.NewReader(got.out)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "troff:") || !strings.Contains(string(out), "oci-proxy warm [flags] IMAGE...") {
		t.Errorf("%v\n%s", err, out)
	}
}
