package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"oci-proxy/node"
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

// look looks at what the config names, and prints a line for each thing. It fails if
// something is wrong.
func look(ctx context.Context, cfg *config.Config, places config.Places, s streams) error {
	running := func(ctx context.Context) bool {
		body, err := get(ctx, baseURL(ownAddr(cfg), cfg.TLS.On())+"/_/health")
		var state struct{ Status string }
		return err == nil && json.Unmarshal(body, &state) == nil && (state.Status == "healthy" || state.Status == "degraded")
	}
	found, err := node.Look(ctx, cfg, running)
	if err != nil {
		return err
	}
	bad := 0
	for _, f := range found {
		if f.Level == node.Wrong {
			bad++
		}
		fmt.Fprintf(s.out, "%-7s %s: %s: %s\n", f.Level, cmp.Or(places.Of(f.Keys...), "default"), f.Keys[0], f.Text)
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d things that were looked at are wrong", bad, len(found))
	}
	return nil
}

// doubts says how many warnings there are.
func doubts(cfg *config.Config) string {
	if n := len(cfg.Warnings); n > 0 {
		return fmt.Sprintf(", %d warnings", n)
	}
	return ""
}

// check reads the config, and prints all errors in it and warnings about it.
func check(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("check", flag.ContinueOnError)
	file := fl.String("c", "", "the config `file`")
	live := fl.Bool("live", false, "look at what the config names, too: ports, cache directories, registries and their logins, seeds")
	if err := parse(fl, args, s); err != nil {
		return err
	}
	cfg, places, err := config.Locate(configPath(*file), os.Environ())
	if cfg, err = printed(cfg, err, s); err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintln(s.err, w)
	}
	fmt.Fprintf(s.out, "the config is valid: port %d, %d registries configured%s\n", cfg.Port, len(cfg.Registries), doubts(cfg))
	if *live {
		return look(ctx, cfg, places, s)
	}
	fmt.Fprintln(s.out, "not looked at: whether registries answer and take their logins, whether seeds answer, whether cache directories can be written to and ports are free; check -live looks")
	return nil
}
