package main

import (
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
	"strconv"
	"syscall"

	"oci-proxy/node"
	"oci-proxy/node/config"
)

// parse reads a command's flags. What is wrong with them has been printed.
func parse(fl *flag.FlagSet, args []string, s streams) error {
	fl.SetOutput(s.err)
	if err := fl.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return errHelp
		}
		return errUsage
	}
	if fl.NArg() > 0 {
		fmt.Fprintf(s.err, "oci-proxy %s: it takes no %q\n", fl.Name(), fl.Arg(0))
		return errUsage
	}
	return nil
}

// errHelp is asked-for help, which is printed and no failure.
var errHelp = errors.New("help")

// load reads the config; all that is wrong with it is printed.
func load(path string, s streams) (*config.Config, error) {
	cfg, err := config.Load(path, os.Environ())
	return printed(cfg, err, s)
}

// find reads the config of a running node; all that is wrong with it is printed.
func find(path string, s streams) (*config.Config, error) {
	cfg, err := config.Find(path, os.Environ())
	return printed(cfg, err, s)
}

func printed(cfg *config.Config, err error, s streams) (*config.Config, error) {
	if err != nil {
		fmt.Fprintln(s.err, err)
		return nil, errUsage
	}
	return cfg, nil
}

// serve runs one node until ctx ends.
func serve(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("serve", flag.ContinueOnError)
	file := fl.String("c", "", "the config `file`; without it built-in defaults serve")
	port := fl.Int("port", 0, "the clients' `port` instead of the config's")
	if err := parse(fl, args, s); err != nil {
		return helped(err)
	}
	cfg, err := load(*file, s)
	if err != nil {
		return err
	}
	if *port < 0 || *port > 65535 {
		fmt.Fprintf(s.err, "oci-proxy serve: -port %d is no port\n", *port)
		return errUsage
	}
	if *port != 0 {
		cfg.Port = *port
	}
	log := logger(cfg, s)
	tame(log)
	l, err := listen(net.JoinHostPort(cfg.Address, strconv.Itoa(cfg.Port)), net.Listen)
	if err != nil {
		return err
	}
	n, err := node.New(cfg, log)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	warnOpen(cfg, log)
	defer rekeyOnHangup(n, *file, log)()
	return n.Run(ctx, l)
}

// rekeyOnHangup reads the cluster's secrets anew whenever SIGHUP comes, until
// the function that it returns is called. What is wrong with them is logged,
// and those in use stay.
func rekeyOnHangup(n *node.Node, file string, log *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hangups {
			rekey(n, file, log)
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}

// rekey exchanges the cluster's secrets for those of the config.
func rekey(n *node.Node, file string, log *slog.Logger) {
	cfg, err := config.Find(file, os.Environ())
	if err == nil && cfg.Cluster != nil {
		err = n.Rekey(cfg.Cluster.Secrets)
	}
	if err != nil {
		log.Error("SIGHUP: the cluster's secrets stay as they were", "error", err)
		return
	}
	log.Info("SIGHUP: the cluster's secrets are read anew; all else needs a restart")
}

// helped makes asked-for help a success.
func helped(err error) error {
	if errors.Is(err, errHelp) {
		return nil
	}
	return err
}

// listen opens the clients' port, by open (net.Listen).
func listen(addr string, open func(network, addr string) (net.Listener, error)) (net.Listener, error) {
	l, err := open("tcp", addr)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("listening on %s: a port below 1024 needs privileges; choose another by -port or the config's port: %w", addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", addr, err)
	}
	return l, nil
}

// logger writes to standard error as the config says.
func logger(cfg *config.Config, s streams) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(s.err, opts))
	}
	return slog.New(slog.NewTextHandler(s.err, opts))
}

// tame makes debug lines of what libraries print: net/http quotes there what a
// registry sends unasked.
func tame(log *slog.Logger) {
	stdlog.SetFlags(0)
	stdlog.SetOutput(slog.NewLogLogger(log.Handler(), slog.LevelDebug).Writer())
}

// warnOpen says so where any client may use what the operator has credentials for.
func warnOpen(cfg *config.Config, log *slog.Logger) {
	if cfg.Auth.Asked() {
		return
	}
	for _, r := range cfg.Registries {
		if r.Username != "" {
			log.Warn("this proxy asks for no login: whoever reaches it can pull what these credentials can", "registry", r.Host)
		}
	}
}

// check reads the config and prints what is wrong with it.
func check(_ context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("check", flag.ContinueOnError)
	file := fl.String("c", "", "the config `file`")
	if err := parse(fl, args, s); err != nil {
		return helped(err)
	}
	cfg, err := load(*file, s)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "the config is right: port %d, %d registries configured\n", cfg.Port, len(cfg.Registries))
	return nil
}
