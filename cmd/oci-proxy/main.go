// Command oci-proxy is a caching proxy for OCI and Docker registries.
//
// Start with main.go (the commands and their flags), then serve.go. The other
// commands have a file each: demo.go (with demoregistry.go), config.go (check),
// status.go, setup.go, leave.go, reload.go, forget.go, warm.go, export.go (with pulled.go), import.go,
// health.go, secret.go, pod.go (own, hold), version.go. What is told of them all is in help.go, completion.go and
// manual.go. What operators do with cached images (ls.go, purge.go, pin.go, verify.go)
// goes by orders.go. target.go asks a running node, which running.go finds if nobody
// says where it is.
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
	"oci-proxy/node/setup"
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

// A command is a command of the program: a row of the one table from which usage, help,
// completion and the manual page are printed.
type command struct {
	name string
	does string                                                      // in a sentence: what follows "oci-proxy NAME: "
	run  func(ctx context.Context, args []string, out streams) error // its args follow the command's name
	// What help adds.
	args    string   // what follows the flags, as usage shows it; "": nothing
	words   []string // what args may be, for completion; nil: whatever one likes
	example string   // a line for a shell
}

// streams are the outputs of a command.
type streams struct {
	out, err io.Writer
	// flags takes the flags of a command, which does nothing else then; nil: it runs.
	flags func(*flag.FlagSet)
}

func commands() []command {
	return []command{
		{name: "serve", run: serve, does: "run one node in the foreground (the default)", example: "oci-proxy serve -c /etc/oci-proxy/config.yaml"},
		{name: "demo", run: demo, does: "run a three-node mesh and a small registry on this machine, and pull through it", example: "oci-proxy demo -port 5001"},
		{name: "check", run: check, does: "check the config and print every error in it; with -live, try what it names", example: "oci-proxy check -live -c config.yaml"},
		{name: "status", run: status, does: "show the cluster as a running node sees it", example: "oci-proxy status -addr node-1:5000"},
		{name: "doctor", run: doctor, does: "look for what keeps a cluster, or the way to a registry, from working, and say what to do", args: "[REGISTRY or IMAGE]", example: "oci-proxy doctor ghcr.io/org/app:1"},
		{name: "setup", run: setupClient, does: "show or write what a client needs to pull through the proxy, and take it back", args: "CLIENT", words: setup.Clients(), example: "oci-proxy setup docker -proxy http://proxy.example:8080 -write"},
		{name: "leave", run: leave, does: "make a running node hand over its content and leave the cluster for good", example: "oci-proxy leave -addr node-2:5000"},
		{name: "reload", run: reload, does: "make a running node read its config again, and say what took effect", example: "oci-proxy reload -addr node-1:5000"},
		{name: "forget", run: forget, does: "make the cluster forget a member that died", args: "NAME", example: "oci-proxy forget node-3"},
		{name: "warm", run: warmImages, does: "make a node pull images into its cache", args: "IMAGE…", example: "oci-proxy warm -platform linux/amd64,linux/arm64 alpine:3 -f compose.yaml"},
		{name: "ls", run: ls, does: "list the images that the cluster has cached", args: "[PATTERN]", example: "oci-proxy ls 'ghcr.io/org/**'"},
		{name: "purge", run: purge, does: "make the cluster forget images", args: "PATTERN…", example: "oci-proxy purge -n 'docker.io/library/*:*-rc'"},
		{name: "pin", run: pin, does: "keep images from being evicted", args: "IMAGE…", example: "oci-proxy pin ghcr.io/org/app:1"},
		{name: "unpin", run: unpin, does: "let pinned images be evicted again", args: "IMAGE…", example: "oci-proxy unpin ghcr.io/org/app:1"},
		{name: "verify", run: verify, does: "hash again all that the cluster holds, and remove what is wrong", example: "oci-proxy verify"},
		{name: "export", run: export, does: "pull images through a node into an OCI layout in a tar file", args: "IMAGE…", example: "oci-proxy export -o images.tar alpine:3 ghcr.io/org/app:1"},
		{name: "import", run: importImages, does: "put the images of such a file into the cache of a node", args: "FILE", example: "oci-proxy import images.tar"},
		{name: "health", run: health, does: "exit with status 0 if a node answers, by default the one on this machine", example: "oci-proxy health -addr node-1:5000"},
		{name: "own", run: own, does: "give a directory to a user, as a pod needs it for a folder of its machine", args: "DIR USER", example: "oci-proxy own /var/lib/oci-proxy 65532"},
		{name: "hold", run: hold, does: "wait for SIGTERM, as a pod needs it whose work is done by its hooks", example: "oci-proxy hold"},
		{name: "secret", run: secret, does: "make a secret for a cluster: print it, or write it to a file that has none yet", example: "oci-proxy secret -o /etc/oci-proxy/secret"},
		{name: "completion", run: completion, does: "print what completes commands and flags in a shell", args: "SHELL", words: []string{"bash", "zsh", "fish"}, example: "source <(oci-proxy completion bash)"},
		{name: "man", run: manual, does: "print the manual page", example: "oci-proxy man | man -l -"},
		{name: "version", run: version, does: "print the version, the commit and the Go version", example: "oci-proxy version"},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	// The first signal drains; a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	b := build()
	node.Version, node.Revision = b.version, b.commit
	upstream.Version = node.Version
	os.Exit(run(ctx, os.Args[1:], streams{out: os.Stdout, err: os.Stderr}))
}

// run runs the command that args name, and returns the exit status.
func run(ctx context.Context, args []string, s streams) int {
	if len(args) > 0 && slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		return help(ctx, args[1:], s)
	}
	name, args := commandOf(args)
	c, ok := commandNamed(name)
	if !ok {
		fmt.Fprintf(s.err, "oci-proxy: unknown command %q\n", name)
		usage(s.err)
		return exitUsage
	}
	return exitStatus(c.run(ctx, args, s), s)
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

// parse parses a command's flags. It returns errUsage after printing what is wrong
// with them, or flag.ErrHelp after printing the help that was asked for.
func parse(fl *flag.FlagSet, args []string, s streams) error {
	if err := parseFlags(fl, args, s); err != nil {
		return err
	}
	if fl.NArg() > 0 {
		return badUsage(s, "oci-proxy %s: unexpected argument %q", fl.Name(), fl.Arg(0))
	}
	return nil
}

// parseFlags is parse for a command that takes arguments behind its flags.
func parseFlags(fl *flag.FlagSet, args []string, s streams) error {
	if s.flags != nil {
		s.flags(fl)
		return flag.ErrHelp
	}
	fl.SetOutput(s.err)
	fl.Usage = func() {} // help goes elsewhere than errors
	err := fl.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		helpOf(fl, s.out)
		return err
	case err != nil:
		return badUsage(s, "Run oci-proxy %s -h for the flags.", fl.Name())
	}
	return nil
}

// badUsage prints what is wrong with the usage, and returns errUsage.
func badUsage(s streams, format string, args ...any) error {
	fmt.Fprintf(s.err, format+"\n", args...)
	return errUsage
}
