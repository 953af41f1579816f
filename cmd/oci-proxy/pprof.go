package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof" // nothing serves the mux that it registers itself at
	"net/netip"
	"time"
)

// serveProfiles serves profiles of this process (package net/http/pprof) at an address of
// loopback, until end is called. Profiles tell what the program does and holds, so no other
// machine may ask, nor a page in a browser that has another name for loopback.
func serveProfiles(ctx context.Context, addr string, s streams) (end func(), err error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil || !at.Addr().IsLoopback() {
		return nil, badUsage(s, "oci-proxy serve: -pprof %q is not an address of loopback with a port; use 127.0.0.1:6060 or [::1]:6060", addr)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening for -pprof: %w", err)
	}
	srv := &http.Server{Handler: profiles(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	fmt.Fprintf(s.err, "profiles at http://%s/debug/pprof/\n", l.Addr())
	return func() {
		_ = srv.Close() // a profile under way is of no more use
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(s.err, "serving profiles:", err)
		}
	}, nil
}

// profiles are the pages of package pprof, for requests that name loopback by its address.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			http.Error(w, "ask by the address of loopback", http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}
