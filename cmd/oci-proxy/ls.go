package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"oci-proxy/node/config"
)

const (
	// lsTimeout bounds listing what the cluster has cached.
	lsTimeout = 2 * time.Minute
	// maxListing bounds the list, in bytes.
	maxListing = 512 << 20
)

// A listing is a node's answer.
type listing struct {
	Images []struct {
		Image         string
		Platforms     []string
		Size, Held    int64
		Used          time.Time
		Pinned, Stale bool
	}
	Others  struct{ Blobs, Bytes int64 }
	Missing []missing
}

// ls lists the images that the cluster has cached.
func ls(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("ls", flag.ContinueOnError)
	file, addr := nodeFlags(fl)
	raw := jsonFlag(fl, "`json` for the node's own answer")
	patterns, err := parseMixed(fl, args, s)
	if err != nil {
		return err
	}
	if len(patterns) > 1 {
		return badUsage(s, "usage: oci-proxy ls [flags] [PATTERN], for example ls 'ghcr.io/org/**' or ls 'docker.io/library/alpine:*'")
	}
	t, err := targetOf(*file, *addr, s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lsTimeout)
	defer cancel()
	return printImages(ctx, t, patterns, *raw, s)
}

// printImages asks a node for the images, and prints them.
func printImages(ctx context.Context, t target, patterns []string, raw bool, s streams) error {
	path := "/_/images"
	if len(patterns) > 0 {
		path += "?" + url.Values{"match": patterns}.Encode()
	}
	resp, err := t.do(ctx, http.MethodGet, path, http.Header{}, nil)
	if err != nil {
		return fmt.Errorf("asking %s what is cached: %w", t.addr, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		_, err := answered(resp)
		return fmt.Errorf("asking %s what is cached: %w", t.addr, err)
	}
	body := io.LimitReader(resp.Body, maxListing)
	if raw {
		_, err := io.Copy(s.out, body)
		return err
	}
	var l listing
	if err := json.NewDecoder(body).Decode(&l); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", t.addr, err)
	}
	printMissing(l.Missing, s)
	if len(l.Images) == 0 && len(patterns) > 0 {
		return noMatch(patterns[0])
	}
	return l.print(s)
}

// noMatch says that nothing is cached that a pattern chooses.
func noMatch(pattern string) error {
	if strings.Contains(pattern, "*") {
		return fmt.Errorf("nothing that is cached matches %s", pattern)
	}
	return fmt.Errorf("the image %s is not cached; to see all of its tags, end the name with :*", pattern)
}

// print prints a table.
func (l listing) print(s streams) error {
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	if len(l.Images) > 0 {
		fmt.Fprintln(w, "IMAGE\tPLATFORMS\tSIZE\tHELD\tUSED\t")
	}
	for _, one := range l.Images {
		held := "all"
		if one.Held < one.Size {
			held = fmt.Sprintf("%d%%", one.Held*100/max(one.Size, 1))
		}
		var notes []string
		if one.Pinned {
			notes = append(notes, "pinned")
		}
		if one.Stale {
			notes = append(notes, "stale")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", one.Image, cmp.Or(strings.Join(one.Platforms, ","), "-"),
			config.FormatSize(one.Size), held, ago(one.Used), strings.Join(notes, ","))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if l.Others.Blobs > 0 {
		fmt.Fprintf(s.out, "%d blobs belong to no image that is known: %s\n", l.Others.Blobs, config.FormatSize(l.Others.Bytes))
	} else if len(l.Images) == 0 {
		fmt.Fprintln(s.out, "nothing is cached")
	}
	return nil
}

// ago says how long ago something was used.
func ago(at time.Time) string {
	d := time.Since(at)
	switch {
	case at.IsZero():
		return "never"
	case d < 2*time.Minute:
		return "now"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	default:
		return fmt.Sprintf("%d days ago", d/(24*time.Hour))
	}
}
