// Front is what the gate puts between a node and a registry: a reverse proxy
// that writes down what it was asked for, and that can behave as registries in
// the field do (send blobs elsewhere, be slow, fail) or split a client's writes from
// its reads. It exists for the end-to-end and conformance runs only.
//
//	front -listen 127.0.0.1:6001 -upstream http://127.0.0.1:6002 -log up.jsonl
//	front ports 4
//	front names 127.0.0.53:53 FILE
//	echo http://127.0.0.1:6002 org/app 3000000 | front push
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("front: ")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		log.Print(err)
		stop()
		os.Exit(1)
	}
}

// run carries out the command line until ctx ends.
func run(ctx context.Context, args []string) error {
	if len(args) == 2 && args[0] == "ports" {
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return fmt.Errorf("reading how many ports to find: %w", err)
		}
		return printPorts(ctx, os.Stdout, n)
	}
	if len(args) == 3 && args[0] == "names" {
		return serveNames(ctx, args[1], args[2])
	}
	if len(args) == 1 && args[0] == "push" {
		return pushImages(ctx, os.Stdin, os.Stdout)
	}
	flags := flag.NewFlagSet("front", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address to listen on")
	logFile := flags.String("log", os.DevNull, "file that one JSON line per answer is appended to")
	var f Front
	flags.Func("upstream", "URL that requests go to; several take turns", f.addUpstream)
	flags.Func("writes", "URL that pushes go to instead", urlInto(&f.Writes))
	flags.StringVar(&f.Prefix, "prefix", "", "what names lead with at -upstream, but not at -writes")
	flags.Func("redirect", "URL that GETs of blobs are sent to with a signature", urlInto(&f.Redirect))
	flags.BoolVar(&f.Signed, "signed", false, "be the place blobs are sent to: demand the signature, refuse credentials")
	cert := flags.String("cert", "", "PEM file with a certificate: speak TLS")
	key := flags.String("key", "", "PEM file with the certificate's key")
	flags.Int64Var(&f.Slow, "slow", 0, "bytes a second for each blob, 0: no bound")
	faultFile := flags.String("faults", os.DevNull, "file of one JSON object per line that says what goes wrong: see Fault")
	if err := flags.Parse(args); err != nil {
		return err
	}
	f.TLS = *cert != ""
	if f.Upstream == nil {
		return errors.New("-upstream is missing")
	}
	script, err := os.Open(*faultFile)
	if err != nil {
		return fmt.Errorf("opening the faults: %w", err)
	}
	defer script.Close()
	faults, err := readFaults(script)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(*logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer out.Close()
	return serve(ctx, *listen, *cert, *key, logged(faulty(f.Serve(), faults), out))
}

// addUpstream adds a place that requests go to.
func (f *Front) addUpstream(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("reading -upstream: %w", err)
	}
	if f.Upstream == nil {
		f.Upstream = u
		return nil
	}
	f.Others = append(f.Others, u)
	return nil
}

// urlInto makes a flag's value a URL.
func urlInto(u **url.URL) func(string) error {
	return func(s string) (err error) {
		*u, err = url.Parse(s)
		return err
	}
}

// serve answers on addr until ctx ends, over TLS if there is a certificate. It
// does not wait for answers that are being sent: the runs need a registry that
// disappears.
func serve(ctx context.Context, addr, cert, key string, h http.Handler) error {
	srv := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	listen := srv.ListenAndServe
	if cert != "" {
		listen = func() error { return srv.ListenAndServeTLS(cert, key) }
	}
	if err := listen(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}
