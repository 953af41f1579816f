package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"

	"oci-proxy/node/config"
	"oci-proxy/node/image"
)

// importImages sends the images of an OCI image layout in a tar file to a node, which
// takes them into its cache.
func importImages(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("import", flag.ContinueOnError)
	file, addr := nodeFlags(fl)
	as := fl.String("as", "", "the `image` name of what has no name in the file, or only a tag")
	files, err := parseMixed(fl, args, s)
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return badUsage(s, "usage: oci-proxy import [flags] FILE")
	}
	t, err := targetOf(*file, *addr, s)
	if err != nil {
		return err
	}
	f, err := image.OpenFile(files[0])
	if err != nil {
		return err
	}
	return errors.Join(sendLayout(ctx, t, f, *as, s), f.Close())
}

// sendLayout sends the images of a file, and prints what became of each.
func sendLayout(ctx context.Context, t target, f *image.File, as string, s streams) error {
	layout, err := f.Layout(as)
	if err != nil {
		return err
	}
	end := func() {}
	defer func() { end() }()
	resp, err := t.do(ctx, http.MethodPost, "/_/import", http.Header{"Content-Type": {"application/x-tar"}}, func() io.Reader {
		end() // of a try before
		var r io.Reader
		r, end = written(layout, f)
		return r
	})
	if err != nil {
		return fmt.Errorf("sending the images to %s: %w", t.addr, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		_, err := answered(resp)
		return fmt.Errorf("sending the images to %s: %w", t.addr, err)
	}
	return printImported(resp.Body, t.addr, s)
}

// printImported prints the lines of the node's answer. The error says that not all was
// imported.
func printImported(body io.Reader, addr string, s streams) error {
	failed := 0
	for dec := json.NewDecoder(body); ; {
		var line struct {
			Image, Digest, Error string
			Images               int
			Bytes                int64
			Done                 bool
		}
		if err := dec.Decode(&line); err != nil {
			return fmt.Errorf("reading the answer of %s: %w", addr, err)
		}
		switch {
		case line.Done && line.Error != "":
			return fmt.Errorf("importing into %s: %s", addr, shown(line.Error))
		case line.Done && failed > 0:
			return fmt.Errorf("%d images were not imported", failed)
		case line.Done:
			fmt.Fprintf(s.out, "imported: %d images, %s\n", line.Images, config.FormatSize(line.Bytes))
			return nil
		case line.Error != "":
			failed++
			fmt.Fprintf(s.err, "%s was not imported: %s\n", shown(line.Image), shown(line.Error))
		default:
			fmt.Fprintf(s.out, "%s is %s\n", shown(line.Image), shown(line.Digest))
		}
	}
}

// shown is a text that a stranger has written into a file, in one line and without what a terminal obeys.
func shown(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ReplaceAll(text, "\n", "; "))
}

// written returns the layout of a file as it is sent, and what ends that.
func written(layout *image.Layout, f *image.File) (io.Reader, func()) {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.CloseWithError(layout.Write(w, f.Open)) // it never fails
	}()
	return r, func() {
		_ = r.Close() // ends the writing, which reads the file
		<-done
	}
}
