package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"oci-proxy/node/config"
	"oci-proxy/node/setup"
)

// maxCA bounds a file with certificate authorities, in bytes.
const maxCA = 1 << 20

// A setupOrder is what the user of setup wants.
type setupOrder struct {
	client                                string
	write, dry, undo                      bool
	root, config, proxy, registries, caAt string
}

// setupClient prints what a client needs to pull through the proxy, or writes it, or takes it
// back.
func setupClient(_ context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("setup", flag.ContinueOnError)
	var o setupOrder
	fl.BoolVar(&o.write, "write", false, "write the files, after showing the difference; files that were there are kept beside, and other settings in them stay")
	fl.BoolVar(&o.dry, "n", false, "only show what -write or -undo would change on this machine")
	fl.BoolVar(&o.undo, "undo", false, "take back what setup has written; what others have changed since stays")
	fl.StringVar(&o.root, "root", "/", "the `folder` that is the root of the client's machine, such as a host's root in a container")
	fl.StringVar(&o.proxy, "proxy", "", "the `URL` at which the client reaches the proxy, http(s)://host[:port] (default: base_url of the node here, or its own address)")
	fl.StringVar(&o.registries, "registries", "", "the `registries` to set up, with commas between (default: all, or the usual ones for a client that has no word for all)")
	fl.StringVar(&o.caAt, "ca", "", "the PEM `file` with the private authority that signed the proxy's certificate")
	fl.StringVar(&o.config, "c", "", "the config `file` of the node")
	names, err := parseMixed(fl, args, s)
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return badUsage(s, "usage: oci-proxy setup [flags] CLIENT, where CLIENT is one of %s", strings.Join(setup.Clients(), ", "))
	}
	o.client = names[0]
	if !slices.Contains(setup.Clients(), o.client) {
		return badUsage(s, "oci-proxy setup: no such client: %q; there are %s", o.client, strings.Join(setup.Clients(), ", "))
	}
	return o.run(s)
}

func (o setupOrder) run(s streams) error {
	m, err := setup.NewMachine(o.root)
	if err != nil {
		return fmt.Errorf("the root of the client's machine: %w", err)
	}
	if o.undo {
		return o.takeBack(m, s)
	}
	opts, err := o.options(s)
	if err != nil {
		return err
	}
	if !o.write && !o.dry {
		p, err := setup.New(o.client, opts)
		if err != nil {
			return err
		}
		printPlan(p, s.out)
		return nil
	}
	opts.Machine = m
	p, err := setup.New(o.client, opts)
	if err != nil {
		return err
	}
	changes, err := m.Compare(p)
	if err != nil {
		return err
	}
	return o.carryOut(changes, p, s)
}

// options are what the flags and the node's config say.
func (o setupOrder) options(s streams) (opts setup.Options, err error) {
	if opts.Registries, err = setup.ParseRegistries(o.registries); err != nil {
		return opts, badUsage(s, "oci-proxy setup: -registries: %v", err)
	}
	if o.caAt != "" {
		if opts.CA, err = readCA(o.caAt); err != nil {
			return opts, err
		}
	}
	if o.proxy == "" || o.config != "" {
		cfg, err := ownNode(o.config, s)
		if err != nil {
			return opts, err
		}
		opts.Login, opts.NotHub = cfg.Auth.Asked(), cfg.DefaultRegistry != config.DockerHub
		if o.proxy == "" {
			if o.proxy = cfg.BaseURL; o.proxy == "" {
				o.proxy = baseURL(ownAddr(cfg), cfg.TLS.On())
			}
		}
	}
	if opts.Proxy, err = setup.ParseEndpoint(o.proxy); err != nil {
		return opts, badUsage(s, "oci-proxy setup: -proxy: %v", err)
	}
	return opts, nil
}

func readCA(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxCA))
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority: %w", err)
	}
	ca, err := setup.ParseCA(text)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority in %s: %w", file, err)
	}
	return ca, nil
}

// printPlan prints a plan, file by file.
func printPlan(p setup.Plan, out io.Writer) {
	fmt.Fprintf(out, "%s through %s\n", p.Client, p.Endpoint)
	for _, f := range p.Files {
		how := "write"
		if f.Merge {
			how = "merge into"
		}
		fmt.Fprintf(out, "\n=== %s %s\n%s", how, f.Path, f.Content)
		if f.Note != "" {
			fmt.Fprintf(out, "    (%s)\n", f.Note)
		}
	}
	fmt.Fprintln(out)
	printRest(p, out)
}

// printRest prints what people should know and do.
func printRest(p setup.Plan, out io.Writer) {
	for _, n := range p.Notes {
		fmt.Fprintln(out, "- "+n)
	}
	if p.Restart != "" {
		fmt.Fprintln(out, "then run: "+p.Restart)
	}
}

// carryOut shows the changes for a plan, and makes them unless -n is given.
func (o setupOrder) carryOut(c *setup.Changes, p setup.Plan, s streams) error {
	if len(c.Files) == 0 {
		fmt.Fprintf(s.out, "%s is set up for %s already: nothing to change\n", p.Client, p.Endpoint)
		return nil
	}
	fmt.Fprint(s.out, c.Diff())
	if o.dry {
		fmt.Fprintf(s.out, "nothing has been changed (-n): %d files would be\n", len(c.Files))
		return nil
	}
	if err := c.Write(); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%d files written; %s has them as they were, and setup -undo puts them back\n", len(c.Files), c.Record())
	printRest(p, s.out)
	return nil
}

// takeBack undoes what setup has written for the client.
func (o setupOrder) takeBack(m *setup.Machine, s streams) error {
	c, err := m.Undo(o.client)
	if err != nil {
		return err
	}
	if len(c.Files) == 0 {
		fmt.Fprintf(s.out, "nothing that setup wrote for %s is here: nothing to undo\n", o.client)
		if o.dry {
			return nil
		}
		return c.Write() // a record of what others have removed already
	}
	fmt.Fprint(s.out, c.Diff())
	if o.dry {
		fmt.Fprintf(s.out, "nothing has been changed (-n): %d files would be\n", len(c.Files))
		return nil
	}
	if err := c.Write(); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%d files are without setup's part again\n", len(c.Files))
	if restart := setup.Restart(o.client); restart != "" {
		fmt.Fprintln(s.out, "then run: "+restart)
	}
	return nil
}
