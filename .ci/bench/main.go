// Bench measures servers side by side: the program, nginx with the same content, and registries that
// are here. It starts
// them on the first processor, asks them in turns from the second, where it is a registry too,
// and prints medians, and medians of the ratios to the first server of each row. It exists for
// .ci/bench.sh only.
//
//	bench rows
//	bench -program oci-proxy -folder /dev/shm/x blob-4k
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(log.Ltime | log.LUTC)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		log.Print("bench: ", err)
		stop()
		os.Exit(1)
	}
}

// Setting is what the script gives to the rows.
type Setting struct {
	Program string        // oci-proxy
	Folder  string        // for everything that is written
	Rounds  int           // how often each server is measured
	For     time.Duration // how long, where a row does not say how much it asks for
	Largest int64         // how many MiB a new blob has at most
	Profile string        // folder for CPU profiles of the program, "" for none
}

// run carries out the command line.
func run(ctx context.Context, args []string, out io.Writer) error {
	var s Setting
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&s.Program, "program", "oci-proxy", "the program")
	flags.StringVar(&s.Folder, "folder", "", "folder for caches and logs, which must exist")
	flags.IntVar(&s.Rounds, "rounds", 5, "how often each server is measured")
	flags.DurationVar(&s.For, "for", time.Second, "how long each time")
	flags.Int64Var(&s.Largest, "largest", 1024, "how many MiB a new blob has at most, where memory is scarce")
	flags.StringVar(&s.Profile, "profile", "", "folder for CPU profiles of the program, one for each row and server (they cost a little)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.Arg(0) == "rows" {
		for _, r := range rows {
			fmt.Fprintln(out, r.name, r.what)
		}
		for _, s := range studies {
			fmt.Fprintln(out, s.name, s.what)
		}
		return nil
	}
	chosen := slices.DeleteFunc(slices.Clone(rows), func(r row) bool {
		return flags.NArg() > 0 && !slices.ContainsFunc(flags.Args(), func(name string) bool { return strings.HasPrefix(r.name, name) })
	})
	if len(chosen) == 0 && !slices.ContainsFunc(studies, func(s study) bool { return s.chosen(flags.Args()) }) {
		return fmt.Errorf("no row's name begins with %q", flags.Args())
	}
	b, err := newBench(ctx, s)
	if err != nil {
		return err
	}
	var failed []error
	if len(chosen) > 0 {
		fmt.Fprintln(out, head)
	}
	for _, r := range chosen {
		if err := b.row(ctx, r, out); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", r.name, err))
		}
	}
	failed = append(failed, b.studied(ctx, flags.Args(), out)...)
	b.stop()
	fmt.Fprintln(out, b.memory())
	return errors.Join(failed...)
}
