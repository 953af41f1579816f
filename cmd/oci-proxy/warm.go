package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/node/image"
)

// maxList bounds a file that names images, in bytes.
const maxList = 16 << 20

// warmImages makes a node pull images into its cache, and prints what became of each.
func warmImages(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("warm", flag.ContinueOnError)
	file, addr := nodeFlags(fl)
	list := fl.String("f", "", "a `file` that names images: a list, a compose file or Kubernetes manifests; - for standard input")
	platforms := platformFlag(fl)
	raw := jsonFlag(fl, "`json` for the node's own lines of JSON")
	images, err := parseMixed(fl, args, s)
	if err != nil {
		return err
	}
	if *list != "" {
		more, err := readImages(*list)
		if err != nil {
			return err
		}
		images = append(images, more...)
	}
	if len(images) == 0 {
		return badUsage(s, "usage: oci-proxy warm [flags] IMAGE… [-f FILE]")
	}
	var want []string
	if *platforms != "" {
		if want = strings.Split(*platforms, ","); len(want) > 0 {
			if _, err := image.Choose(want); err != nil {
				return badUsage(s, "oci-proxy warm: -platform: %v", err)
			}
		}
	} else {
		want = []string{image.Own()[0].String()}
	}
	t, err := targetOf(*file, *addr, s)
	if err != nil {
		return err
	}
	return askWarm(ctx, t, images, want, *raw, s)
}

// readImages reads the names of images in a file.
func readImages(name string) ([]string, error) {
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxList+1))
	if err == nil && len(text) > maxList {
		err = fmt.Errorf("it is larger than %d bytes", maxList)
	}
	var images []string
	if err == nil {
		images, err = config.Images(text)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return images, nil
}

// askWarm asks the node, and prints its lines as they come.
func askWarm(ctx context.Context, t target, images, platforms []string, raw bool, s streams) error {
	began, what, count := time.Now(), map[string][]string{"images": images, "platforms": platforms}, 0
	far, s := newProgress("images", s, !raw && isTerminal(s.err))
	defer far.end()
	far.at("", part{0, len(images)}, "")
	return t.lines(ctx, "pull images", "/_/warm", what, func(one json.RawMessage) (last bool, err error) {
		if raw {
			fmt.Fprintf(s.out, "%s\n", one)
		}
		if last, err = printWarm(one, raw, began, s); !last {
			count++
			far.at("", part{count, len(images)}, "")
		}
		return last, err
	})
}

// printWarm prints a line of the node's answer, and reports whether it is the last. The
// error says that some images failed.
func printWarm(one json.RawMessage, raw bool, began time.Time, s streams) (done bool, err error) {
	var line struct {
		Image, Digest, Error string
		Bytes                int64
		Images, Failed       int
		Done                 bool
	}
	if err := json.Unmarshal(one, &line); err != nil {
		return true, fmt.Errorf("reading an answer: %w", err)
	}
	switch {
	case line.Done && line.Failed > 0:
		return true, fmt.Errorf("%d of %d images failed", line.Failed, line.Failed+line.Images)
	case line.Error != "":
		fmt.Fprintf(s.err, "%s failed: %s\n", line.Image, line.Error)
	case raw:
	case line.Done:
		fmt.Fprintf(s.out, "%d images are in the cache: %s, %s\n", line.Images, config.FormatSize(line.Bytes), time.Since(began).Round(time.Second))
	default:
		fmt.Fprintf(s.out, "%s is %s: %s\n", line.Image, line.Digest, config.FormatSize(line.Bytes))
	}
	return line.Done, nil
}
