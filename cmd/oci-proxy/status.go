package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"oci-proxy/transfer/wait"
)

const (
	// statusTimeout is how long a node may take to describe its cluster: it asks the
	// other members first, for about a second.
	statusTimeout = 5 * time.Second
	// watchEvery is how often -watch asks.
	watchEvery = 2 * time.Second
)

// status asks a node for its cluster, and prints it.
func status(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("status", flag.ContinueOnError)
	file, addr := nodeFlags(fl)
	raw := jsonFlag(fl, "`json` for one object that stays the same over versions")
	watch := fl.Bool("watch", false, "ask again every two seconds, until stopped")
	if err := parse(fl, args, s); err != nil {
		return err
	}
	t, err := targetOf(*file, *addr, s)
	if err != nil {
		return err
	}
	write := writeStatus
	if *raw {
		write = writeStatusJSON
	}
	if !*watch {
		report, err := askStatus(ctx, t)
		if err != nil {
			return err
		}
		return write(s.out, report)
	}
	return watchStatus(ctx, func(ctx context.Context) (clusterStatus, error) { return askStatus(ctx, t) }, write, isTerminal(s.out), s)
}

// askStatus asks a node for its cluster, and for its registries.
func askStatus(ctx context.Context, t target) (clusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	body, err := t.ask(ctx, http.MethodGet, "/_/cluster")
	if err != nil {
		return clusterStatus{}, fmt.Errorf("asking %s for its cluster: %w", t.addr, err)
	}
	var c clusterAnswer
	if err := json.Unmarshal(body, &c); err != nil {
		return clusterStatus{}, fmt.Errorf("reading the answer of %s: %w", t.addr, err)
	}
	var ups []upstreamStatus
	if body, err := t.ask(ctx, http.MethodGet, "/_/upstreams"); err == nil { // earlier versions have none
		if err := json.Unmarshal(body, &ups); err != nil {
			return clusterStatus{}, fmt.Errorf("reading the answer of %s: %w", t.addr, err)
		}
	}
	return statusOf(c, ups, t.addr, time.Now()), nil
}

// writeStatusJSON writes a report as a line of JSON.
func writeStatusJSON(w io.Writer, c clusterStatus) error { return json.NewEncoder(w).Encode(c) }

// clearScreen moves a terminal's cursor home and clears what is below it.
const clearScreen = "\x1b[H\x1b[J"

// watchStatus asks again and again until ctx ends. On a terminal each report takes the
// place of the one before; anywhere else it follows it.
func watchStatus(ctx context.Context, ask func(context.Context) (clusterStatus, error), write func(io.Writer, clusterStatus) error, redraw bool, s streams) error {
	report, err := ask(ctx)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		var text bytes.Buffer
		if err != nil { // it may come back
			fmt.Fprintln(&text, time.Now().Format(time.TimeOnly), err)
		} else if err := write(&text, report); err != nil {
			return err
		}
		if redraw {
			fmt.Fprint(s.out, clearScreen)
		}
		if _, err := s.out.Write(text.Bytes()); err != nil {
			return fmt.Errorf("writing the status: %w", err)
		}
		_ = wait.For(ctx, watchEvery) // the loop sees ctx's end
		if ctx.Err() == nil {
			report, err = ask(ctx)
		}
	}
	return nil // stopped
}

// isTerminal reports whether what is written to w is shown at once, and may be redrawn.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
