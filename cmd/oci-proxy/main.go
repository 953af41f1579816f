// Command oci-proxy is a caching proxy for OCI and Docker registries.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"oci-proxy/node"
	"oci-proxy/transfer/upstream"
)

// The exit statuses.
const (
	exitDone   = 0
	exitFailed = 1 // it failed while running
	exitUsage  = 2 // bad usage or bad config
)

// errUsage marks what the caller has to mend: its error has been printed.
var errUsage = errors.New("usage")

// A command is one of the program's; args are those behind its name.
type command struct {
	name, does string
	run        func(ctx context.Context, args []string, out streams) error
}

// streams are where a command writes.
type streams struct{ out, err io.Writer }

func commands() []command {
	return []command{
		{"serve", "run one node in the foreground (the default)", serve},
		{"demo", "run a mesh of three nodes and a small registry here, and pull through it", demo},
		{"check", "read the config and print everything wrong with it", check},
		{"status", "ask a running node for its cluster", status},
		{"leave", "ask a running node to hand over what it holds and to leave for good", leave},
		{"health", "exit 0 if the node on this machine answers", health},
		{"version", "print version, commit and Go version", version},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	// The first signal drains; a second one ends the process as usual.
	context.AfterFunc(ctx, stop)
	node.Version = build().version
	upstream.Version = node.Version
	os.Exit(run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr}))
}

// run runs the command that args name and returns the exit status.
func run(ctx context.Context, args []string, s streams) int {
	if len(args) > 0 && slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		usage(s.out)
		return exitDone
	}
	name := "serve"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	for _, c := range commands() {
		if c.name != name {
			continue
		}
		err := c.run(ctx, args, s)
		switch {
		case err == nil:
			return exitDone
		case errors.Is(err, errUsage):
			return exitUsage
		default:
			fmt.Fprintln(s.err, "oci-proxy:", err)
			return exitFailed
		}
	}
	fmt.Fprintf(s.err, "oci-proxy: no command %q\n", name)
	usage(s.err)
	return exitUsage
}

// usage prints the commands.
func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: oci-proxy [command] [flags]")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.does)
	}
	fmt.Fprintln(w, "oci-proxy COMMAND -h tells a command's flags.")
}
