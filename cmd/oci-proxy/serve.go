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
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"oci-proxy/node"
	"oci-proxy/node/config"
	"oci-proxy/node/journal"
)

// serve runs one node until ctx ends.
func serve(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("serve", flag.ContinueOnError)
	file, port := serveFlags(fl)
	profile := fl.String("pprof", "", "serve profiles of this process at that `address` of loopback, such as 127.0.0.1:6060, below /debug/pprof/")
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
	if *profile != "" {
		end, err := serveProfiles(ctx, *profile, s)
		if err != nil {
			return err
		}
		defer end()
	}
	level := new(slog.LevelVar)
	return runNode(ctx, cfg, *file, node.Source{Level: level, Load: func() (*config.Config, error) {
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
func runNode(ctx context.Context, cfg *config.Config, file string, source node.Source, log *slog.Logger) error {
	tame(log)
	configured := cfg.Port
	l, err := clientsPort(cfg, log)
	if cfg.Port != configured {
		source = onPort(source, cfg.Port)
	}
	if err == nil {
		logStart(cfg, file, l.Addr(), log)
	}
	spareMemory(log)
	for _, w := range cfg.Warnings {
		log.Warn("config warning", "warning", w.Error())
	}
	if err != nil {
		return err
	}
	n, err := node.New(cfg, log)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	warnOpen(cfg, log)
	telling, stop := context.WithCancel(context.WithoutCancel(ctx)) // through a drain, too
	defer stop()
	super := newSupervisor(log)
	defer super.end()
	n.Tell(func(stage node.Stage) { super.stage(l.Addr().String(), stage) })
	go super.guard(telling, n.Pulse)
	n.ReloadFrom(source)
	defer reloadOnHangup(ctx, n, super)()
	return n.Run(ctx, l)
}

// logStart logs what runs, and where it is reached: the first line of a node's log.
func logStart(cfg *config.Config, file string, at net.Addr, log *slog.Logger) {
	b := build()
	attrs := []slog.Attr{slog.String("version", b.version), slog.String("commit", b.commit), slog.String("config", file), slog.String("address", at.String())}
	if c := cfg.Cluster; c != nil {
		attrs = append(attrs, slog.String("cluster", c.Name), slog.String("cluster_id", c.ID), slog.String("gossip", c.BindAddr), slog.String("peers", c.PeerAddr))
	}
	log.LogAttrs(context.Background(), slog.LevelInfo, "oci-proxy starts", append(attrs, slog.String("page", pageURL(cfg, at)))...)
}

// pageURL is where people open the page: base_url, or else the address of the listener.
func pageURL(cfg *config.Config, at net.Addr) string {
	if cfg.BaseURL != "" {
		return cfg.BaseURL
	}
	host, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return ""
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http://"
	if cfg.TLS.On() {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port) + "/"
}

// clientsPort returns the clients' port: that which the service manager has opened, whose number
// counts then, or else the config's.
func clientsPort(cfg *config.Config, log *slog.Logger) (net.Listener, error) {
	l, err := passed()
	if l == nil && err == nil {
		return listen(net.JoinHostPort(cfg.Address, strconv.Itoa(cfg.Port)), net.Listen)
	}
	if err != nil {
		return nil, err
	}
	if addr, ok := l.Addr().(*net.TCPAddr); ok && addr.Port != cfg.Port {
		log.Warn("the service manager's socket has another port than the config: commands on this machine need -addr", "socket", addr.String(), "port", cfg.Port)
		cfg.Port = addr.Port
	}
	return l, nil
}

// onPort is source for a node whose port the service manager has opened: the config's does not
// count.
func onPort(source node.Source, port int) node.Source {
	load := source.Load
	source.Load = func() (*config.Config, error) {
		cfg, err := load()
		if err == nil {
			cfg.Port = port
		}
		return cfg, err
	}
	return source
}

// reloadOnHangup makes the node read its config again at each SIGHUP, until stop is called. The
// node logs what came of it.
func reloadOnHangup(ctx context.Context, n *node.Node, super supervisor) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hangups {
			super.reload(func() { _, _ = n.Reload(ctx) }) // it has logged the error
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
		return slog.New(journal.New(slog.NewJSONHandler(s.err, opts)))
	}
	return slog.New(journal.New(slog.NewTextHandler(s.err, opts)))
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
		if len(r.Logins()) > 0 {
			log.Warn("no login required: anybody who reaches this proxy can pull what its credentials allow; set auth in the config", "registry", r.Host)
		}
	}
}
