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

// check reads the config, and prints all errors in it.
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
	fmt.Fprintf(s.out, "the config is valid: port %d, %d registries configured\n", cfg.Port, len(cfg.Registries))
	return nil
}
