// Once proves that no byte comes from upstream twice, whatever happens to a cluster. It starts
// nodes of the program, a registry that counts the bytes it sends, and clients that hash what they
// get; it makes nodes join, leave, die and hang; and it prints upstream bytes ÷ unique bytes. It
// exists for .ci/once.sh only.
//
//	once rows
//	once -program oci-proxy -folder /tmp/x join
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(log.Ltime | log.LUTC)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		log.Print("once: ", err)
		stop()
		os.Exit(1)
	}
}

// errBad is the error of figures that are not what they must be.
var errBad = errors.New("not what it must be")

// run carries out the command line.
func run(ctx context.Context, args []string, out io.Writer) error {
	var s Setting
	flags := flag.NewFlagSet("once", flag.ContinueOnError)
	flags.StringVar(&s.Program, "program", "oci-proxy", "the program")
	flags.StringVar(&s.Folder, "folder", "", "folder for caches and logs, which must exist")
	flags.StringVar(&s.Spaces, "spaces", "", "network namespaces of the nodes, without -N at the end; the registry is at 10.97.0.1")
	flags.StringVar(&s.Small, "small", "", "folder for the first node's cache, on a disk of a few megabytes")
	flags.BoolVar(&s.Long, "long", false, "the long form")
	flags.Uint64Var(&s.Seed, "seed", uint64(time.Now().UnixNano()), "of everything that is random")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for _, row := range rows {
		switch flags.Arg(0) {
		case "rows":
			fmt.Fprintln(out, row.name, row.what)
		case row.name:
			return try(ctx, s, row.run, out)
		}
	}
	if flags.Arg(0) != "rows" {
		return fmt.Errorf("there is no row %q", flags.Arg(0))
	}
	return nil
}

// try runs one row, and prints its figures.
func try(ctx context.Context, s Setting, row func(context.Context, *Trial) error, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var err error
	if s.Ports, err = freePorts(ctx); err != nil {
		return err
	}
	if s.Folder, err = filepath.Abs(s.Folder); err != nil {
		return fmt.Errorf("finding the folder: %w", err)
	}
	t, err := newTrial(ctx, s)
	if err != nil {
		return err
	}
	defer t.end()
	err = row(ctx, t)
	line, good := t.outcome()
	for _, reason := range append(t.reasons, t.Registry.Again()...) {
		fmt.Fprintln(out, reason)
	}
	fmt.Fprintf(out, "%s; seed %d\n", line, s.Seed)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case !good:
		return errBad
	}
	return nil
}

// freePorts returns three ports that are free on 127.0.0.1, below those that the kernel gives to
// outgoing connections. Nodes use them at other addresses.
func freePorts(ctx context.Context) (ports [3]int, err error) {
	var listen net.ListenConfig
	for i := range ports {
		for range 100 {
			ports[i] = 20000 + rand.IntN(12000)
			var l net.Listener
			if l, err = listen.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", ports[i])); err == nil {
				defer l.Close() // held until all are found, so that none comes twice
				break
			}
		}
		if err != nil {
			return ports, fmt.Errorf("finding a port: %w", err)
		}
	}
	return ports, nil
}
