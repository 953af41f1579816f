// Command oci-proxy is a caching proxy for OCI and Docker registries.
//
// Start with main.go (the commands and their flags), then serve.go. The other
// commands have a file each: demo.go (with demoregistry.go), config.go (check),
// status.go, leave.go, reload.go, forget.go, warm.go, export.go (with pulled.go), import.go,
// health.go, version.go. target.go asks a running node, which
// running.go finds if nobody says where it is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"oci-proxy/node"
	"oci-proxy/transfer/upstream"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1 // it failed while running
	exitUsage  = 2 // bad usage or bad config
)

// errUsage means bad usage or a bad config. The error has been printed.
var errUsage = errors.New("usage")

// A command is a command of the program. Its args follow the command's name.
type command struct {
	name, does string
	run        func(ctx context.Context, args []string, out streams) error
}

// streams are the outputs of a command.
type streams struct{ out, err io.Writer }

func commands() []command {
	return []command{
		{"serve", "run one node in the foreground (the default)", serve},
		{"demo", "run a three-node mesh and a small registry on this machine, and pull through it", demo},
		{"check", "check the config and print every error in it; with -live, try what it names", check},
		{"status", "show the cluster as a running node sees it", status},
		{"leave", "make a running node hand over its content and leave the cluster for good", leave},
		{"reload", "make a running node read its config again, and say what took effect", reload},
		{"forget", "make the cluster forget a member that died", forget},
		{"warm", "make a node pull images into its cache", warmImages},
		{"export", "pull images through a node into an OCI layout in a tar file", export},
		{"import", "put the images of such a file into the cache of a node", importImages},
		{"health", "exit with status 0 if a node answers, by default the one on this machine", health},
		{"version", "print the version, the commit and the Go version", version},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	// The first signal drains; a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	node.Version = build().version
	upstream.Version = node.Version
	os.Exit(run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr}))
}

// run runs the command that args name, and returns the exit status.
func run(ctx context.Context, args []string, s streams) int {
	if len(args) > 0 && slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		usage(s.out)
		return exitDone
	}
	name, args := commandOf(args)
	all := commands()
	i := slices.IndexFunc(all, func(c command) bool { return c.name == name })
	if i < 0 {
		fmt.Fprintf(s.err, "oci-proxy: unknown command %q\n", name)
		usage(s.err)
		return exitUsage
	}
	return exitStatus(all[i].run(ctx, args, s), s)
}

// commandOf returns the name of the command in the program's arguments, and its own.
func commandOf(args []string) (name string, rest []string) {
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		return args[0], args[1:]
	}
	return "serve", args
}

// exitStatus prints a command's error, and returns the exit status for it.
func exitStatus(err error, s streams) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.Is(err, errUsage):
		return exitUsage
	default:
		fmt.Fprintln(s.err, "oci-proxy:", err)
		return exitFailed
	}
}

// usage prints the commands.
func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: oci-proxy [command] [flags]")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.does)
	}
	fmt.Fprintln(w, "Run oci-proxy COMMAND -h for the flags of a command.")
}

// parse parses a command's flags. It returns errUsage after printing what is wrong
// with them, or flag.ErrHelp after printing the help that was asked for.
func parse(fl *flag.FlagSet, args []string, s streams) error {
	fl.SetOutput(s.err)
	err := fl.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return errUsage
	case fl.NArg() > 0:
		return badUsage(s, "oci-proxy %s: unexpected argument %q", fl.Name(), fl.Arg(0))
	}
	return nil
}

// badUsage prints what is wrong with the usage, and returns errUsage.
func badUsage(s streams, format string, args ...any) error {
	fmt.Fprintf(s.err, format+"\n", args...)
	return errUsage
}
