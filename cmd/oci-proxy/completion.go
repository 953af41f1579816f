package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
)

// completion prints a script that completes commands and flags in a shell.
func completion(_ context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("completion", flag.ContinueOnError)
	names, err := parseMixed(fl, args, s)
	if err != nil {
		return err
	}
	scripts := map[string]func(io.Writer){"bash": completeBash, "zsh": completeZsh, "fish": completeFish}
	if len(names) != 1 || scripts[names[0]] == nil {
		return badUsage(s, "usage: oci-proxy completion bash|zsh|fish")
	}
	scripts[names[0]](s.out)
	return nil
}

// isFile reports whether the value of a flag is the name of a file.
func (f toldFlag) isFile() bool { return f.value == "file" }

// words are the values that a flag may have; nil: whatever one likes.
func (f toldFlag) words() []string {
	if f.value == "json" {
		return []string{"json"}
	}
	return nil
}

// completeBash prints the script for bash.
func completeBash(w io.Writer) {
	var names []string
	var flags, values strings.Builder
	var others []string // whose values are files, or anything
	for _, c := range commands() {
		names = append(names, c.name)
		words := append([]string{}, c.words...)
		for _, f := range told(c) {
			words = append(words, "-"+f.name)
			switch {
			case f.words() != nil:
				fmt.Fprintf(&values, "    \"%s -%s\") words=%q ;;\n", c.name, f.name, strings.Join(f.words(), " "))
			case f.value != "":
				others = append(others, fmt.Sprintf("%q", c.name+" -"+f.name))
			}
		}
		fmt.Fprintf(&flags, "    %s) words=%q ;;\n", c.name, strings.Join(words, " "))
	}
	fmt.Fprintf(w, `# Completion of oci-proxy for bash: source <(oci-proxy completion bash)
_oci_proxy() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=serve words=
  if [[ $COMP_CWORD -eq 1 && $cur != -* ]]; then
    COMPREPLY=($(compgen -W %q -- "$cur"))
    return
  fi
  [[ ${COMP_WORDS[1]} == -* ]] || command=${COMP_WORDS[1]}
  case $command in
%s  esac
  case "$command $prev" in
%s    %s) words= ;; # a file, if any
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _oci_proxy oci-proxy
`, strings.Join(names, " "), flags.String(), values.String(), strings.Join(others, "|"))
}

// completeZsh prints the script for zsh.
func completeZsh(w io.Writer) {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	plain := strings.NewReplacer("[", "(", "]", ")", ":", `\:`)
	var names, cases strings.Builder
	for _, c := range commands() {
		fmt.Fprintf(&names, "    %s\n", quote(c.name+":"+c.does))
		fmt.Fprintf(&cases, "    %s) _arguments", c.name)
		for _, f := range told(c) {
			spec := fmt.Sprintf("-%s[%s]", f.name, plain.Replace(f.does))
			switch {
			case f.words() != nil:
				spec += fmt.Sprintf(":%s:(%s)", plain.Replace(f.value), strings.Join(f.words(), " "))
			case f.isFile():
				spec += ":file:_files"
			case f.value != "":
				spec += ":" + plain.Replace(f.value) + ":"
			}
			fmt.Fprintf(&cases, " \\\n      %s", quote(spec))
		}
		switch {
		case c.words != nil:
			fmt.Fprintf(&cases, " \\\n      %s", quote("*:"+c.args+":("+strings.Join(c.words, " ")+")"))
		case c.args == "FILE":
			fmt.Fprintf(&cases, " \\\n      %s", quote("*:file:_files"))
		}
		fmt.Fprintln(&cases, " ;;")
	}
	fmt.Fprintf(w, `#compdef oci-proxy
# Completion of oci-proxy for zsh: source <(oci-proxy completion zsh), or a file _oci-proxy in $fpath
_oci_proxy() {
  local -a commands
  commands=(
%s  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe command commands
    return
  fi
  local command=serve
  if [[ $words[2] != -* ]]; then
    command=$words[2]
    shift words
    (( CURRENT-- ))
  fi
  case $command in
%s  esac
}
if [[ $funcstack[1] == _oci_proxy || $funcstack[1] == _oci-proxy ]]; then
  _oci_proxy "$@"
else
  compdef _oci_proxy oci-proxy
fi
`, names.String(), cases.String())
}

// completeFish prints the script for fish.
func completeFish(w io.Writer) {
	quote := func(s string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
	}
	fmt.Fprintln(w, "# Completion of oci-proxy for fish: oci-proxy completion fish | source")
	fmt.Fprintln(w, "complete -c oci-proxy -n __fish_use_subcommand -f")
	for _, c := range commands() {
		fmt.Fprintf(w, "complete -c oci-proxy -n __fish_use_subcommand -f -a %s -d %s\n", c.name, quote(c.does))
		when := quote("__fish_seen_subcommand_from " + c.name)
		if c.words != nil {
			fmt.Fprintf(w, "complete -c oci-proxy -n %s -f -a %s\n", when, quote(strings.Join(c.words, " ")))
		}
		for _, f := range told(c) {
			option := "-o " + f.name // a long option with one dash
			if len(f.name) == 1 {
				option = "-s " + f.name
			}
			switch {
			case f.words() != nil:
				option += " -x -a " + quote(strings.Join(f.words(), " "))
			case f.isFile():
				option += " -r -F"
			case f.value != "":
				option += " -x"
			}
			fmt.Fprintf(w, "complete -c oci-proxy -n %s %s -d %s\n", when, option, quote(f.does))
		}
	}
}
