package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"oci-proxy/node"
	"oci-proxy/node/config"
	"oci-proxy/node/image"
)

// export pulls images through a node into a file, as an OCI image layout in a tar file.
func export(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("export", flag.ContinueOnError)
	file, addr := nodeFlags(fl)
	to := fl.String("o", "", "the `file` to write, - for standard output")
	platforms := platformFlag(fl)
	images, err := parseMixed(fl, args, s)
	if err != nil {
		return err
	}
	if len(images) == 0 || *to == "" {
		return badUsage(s, "usage: oci-proxy export [flags] IMAGE… -o FILE")
	}
	want, err := image.ParsePlatforms(*platforms)
	if err != nil {
		return badUsage(s, "oci-proxy export: -platform: %v", err)
	}
	t, err := targetOf(*file, *addr, s)
	if err != nil {
		return err
	}
	e := &exporter{ctx: ctx, node: t, want: want, log: s.err, layout: image.NewLayout()}
	for _, name := range images {
		if err := e.add(name); err != nil {
			return fmt.Errorf("exporting %s: %w", name, err)
		}
	}
	return e.write(*to, s)
}

// platformFlag defines -platform.
func platformFlag(fl *flag.FlagSet) *string {
	return fl.String("platform", "", "`os/arch[/variant],…` or all (default: "+image.Own()[0].String()+")")
}

// An exporter collects images for a file.
type exporter struct {
	ctx    context.Context
	node   target
	want   image.Platforms
	log    io.Writer
	layout *image.Layout
}

// add adds an image.
func (e *exporter) add(name string) error {
	ref, err := node.ParseImage(e.node.cfg, name)
	if err != nil {
		return err
	}
	reference, suffix := ref.Tag, ":"+ref.Tag
	if ref.Digest != "" {
		reference, suffix = ref.Digest.String(), "@"+ref.Digest.String()
	}
	i, err := image.Walk(e.ctx, &pulled{node: e.node, registry: ref.Registry, repository: ref.Repository}, reference, e.want)
	if err != nil {
		return err
	}
	e.layout.Add(shownName(ref.Registry)+"/"+ref.Repository, suffix, i)
	fmt.Fprintf(e.log, "%s is %s\n", name, i.Top.Digest)
	return nil
}

// shownName is a registry as people write it.
func shownName(registry string) string {
	if registry == config.DockerHub {
		return "docker.io"
	}
	return registry
}

// write writes the file. What is not whole has another name.
func (e *exporter) write(to string, s streams) (err error) {
	if to == "-" {
		return e.layout.Write(s.out, e.open)
	}
	part := to + ".part"
	f, err := os.Create(part)
	if err != nil {
		return err
	}
	if err = errors.Join(e.layout.Write(f, e.open), f.Close()); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, to); err != nil {
		return err
	}
	info, err := os.Stat(to)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s is written: %s\n", to, config.FormatSize(info.Size()))
	return nil
}

// open opens a blob at the node.
func (e *exporter) open(b image.Blob) (io.ReadCloser, error) {
	registry, repository, _ := strings.Cut(b.Repository, "/")
	p := &pulled{node: e.node, registry: config.Canonical(registry), repository: repository}
	return p.blob(e.ctx, b.Digest)
}
