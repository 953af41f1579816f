package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	stdlog "log"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"

	"oci-proxy/node"
	"oci-proxy/node/config"
)

// serve runs one node until ctx ends.
func serve(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("serve", flag.ContinueOnError)
	file, port := serveFlags(fl)
	if err := parse(fl, args, s); err != nil {
		return err
	}
	*file = configPath(*file)
	cfg, err := load(*file, s)
	if err != nil {
		return err
	}
	if *port < 0 || *port > 65535 {
		return badUsage(s, "oci-proxy serve: -port %d is not a port; use a number from 1 to 65535", *port)
	}
	cfg.Port = cmp.Or(*port, cfg.Port)
	level := new(slog.LevelVar)
	return runNode(ctx, cfg, node.Source{Level: level, Load: func() (*config.Config, error) {
		cfg, err := config.Load(*file, os.Environ())
		if err == nil {
			cfg.Port = cmp.Or(*port, cfg.Port)
		}
		return cfg, err
	}}, logger(cfg, level, s))
}

// serveFlags defines the flags of serve.
func serveFlags(fl *flag.FlagSet) (file *string, port *int) {
	file = fl.String("c", "", "the config `file` (default: that of "+config.FileVariable+", or else built-in defaults)")
	port = fl.Int("port", 0, "the `port` for clients, instead of the config's")
	return file, port
}

// runNode runs the node of the config until ctx ends.
func runNode(ctx context.Context, cfg *config.Config, source node.Source, log *slog.Logger) error {
	tame(log)
	for _, w := range cfg.Warnings {
		log.Warn("config warning", "warning", w.Error())
	}
	spareMemory()
	l, err := listen(net.JoinHostPort(cfg.Address, strconv.Itoa(cfg.Port)), net.Listen)
	if err != nil {
		return err
	}
	n, err := node.New(cfg, log)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	warnOpen(cfg, log)
	n.ReloadFrom(source)
	defer reloadOnHangup(ctx, n)()
	return n.Run(ctx, l)
}

// gcPercent is how much the memory may grow over what is in use before what is no longer
// in use is collected. A node holds little and makes little garbage, so that it spends no
// more time on this than by Go's own 100, and its budgets are kept more closely.
const gcPercent = 50

// spareMemory sets gcPercent, unless the operator has set GOGC.
func spareMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// reloadOnHangup makes the node read its config again at each SIGHUP, until stop is called. The
// node logs what came of it.
func reloadOnHangup(ctx context.Context, n *node.Node) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hangups {
			_, _ = n.Reload(ctx) // it has logged the error
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}

// listen opens the port for clients with open (net.Listen).
func listen(addr string, open func(network, addr string) (net.Listener, error)) (net.Listener, error) {
	l, err := open("tcp", addr)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("listening on %s: a port below 1024 needs privileges; choose another one with -port or in the config: %w", addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", addr, err)
	}
	return l, nil
}

// logger returns a logger that writes to standard error as the config says, from level on.
func logger(cfg *config.Config, level *slog.LevelVar, s streams) *slog.Logger {
	level.Set(cfg.LogLevel)
	opts := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(s.err, opts))
	}
	return slog.New(slog.NewTextHandler(s.err, opts))
}

// tame logs what libraries print at debug level: net/http prints what a registry
// sends unasked.
func tame(log *slog.Logger) {
	stdlog.SetFlags(0)
	stdlog.SetOutput(slog.NewLogLogger(log.Handler(), slog.LevelDebug).Writer())
}

// warnOpen logs a warning if any client may use the operator's credentials.
func warnOpen(cfg *config.Config, log *slog.Logger) {
	if cfg.Auth.Asked() {
		return
	}
	for _, r := range cfg.Registries {
		if r.Username != "" {
			log.Warn("no login required: anybody who reaches this proxy can pull what its credentials allow; set auth in the config", "registry", r.Host)
		}
	}
}
