package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"oci-proxy/node/config"
)

// load reads a config, and prints all errors in it.
func load(path string, s streams) (*config.Config, error) {
	cfg, err := config.Load(path, os.Environ())
	return printed(cfg, err, s)
}

// find reads the config of a running node, and prints all errors in it.
func find(path string, environ []string, s streams) (*config.Config, error) {
	cfg, err := config.Find(path, environ)
	return printed(cfg, err, s)
}

func printed(cfg *config.Config, err error, s streams) (*config.Config, error) {
	if err != nil {
		return nil, badUsage(s, "%v", err)
	}
	return cfg, nil
}

// doubts says how many warnings there are.
func doubts(cfg *config.Config) string {
	if n := len(cfg.Warnings); n > 0 {
		return fmt.Sprintf(", %d warnings", n)
	}
	return ""
}

// check reads the config, and prints all errors in it and warnings about it.
func check(_ context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("check", flag.ContinueOnError)
	file := fl.String("c", "", "the config `file`")
	if err := parse(fl, args, s); err != nil {
		return err
	}
	cfg, err := load(configPath(*file), s)
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintln(s.err, w)
	}
	fmt.Fprintf(s.out, "the config is valid: port %d, %d registries configured%s\n", cfg.Port, len(cfg.Registries), doubts(cfg))
	fmt.Fprintln(s.out, "not looked at: whether registries answer and take their logins, whether seeds answer, whether cache directories can be written to and ports are free; check -live looks")
	return nil
}
