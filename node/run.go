package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"oci-proxy/node/cluster"
	"oci-proxy/node/reply"
	"oci-proxy/transfer/express"
	"oci-proxy/transfer/wait"
)

// maxHeader bounds a request's header in bytes.
const maxHeader = 32 << 10

// A Stage is what Run has come to.
type Stage string

// The stages, in order.
const (
	Ready    Stage = "ready"    // the node should get traffic
	Draining Stage = "draining" // it ends once nobody pulls, or shutdown_timeout is over
)

// Tell makes Run call tell at each stage that it comes to. Call it before Run. tell must return
// soon.
func (n *Node) Tell(tell func(Stage)) { n.tell = tell }

// Pulse returns once the rooms that a request passes have answered. It does no I/O, so that it
// hangs only if the node does.
func (n *Node) Pulse() { n.reports.totals() }

// A clientServer is the clients' server, and the lane before it.
type clientServer struct {
	*http.Server
	lane *express.Lane
}

// server is the clients' server.
func (n *Node) server() *clientServer {
	srv := &http.Server{
		Handler: n.Handler(), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		// net/http would answer OPTIONS * by itself, past the gate.
		DisableGeneralOptionsHandler: true,
		TLSConfig:                    serverTLS(n), ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	setProtocols(srv)
	n.gate.Watch(srv)
	return &clientServer{srv, express.New(srv, atHand(n))}
}

// serve serves on l, over TLS if that is set up.
func serve(srv *clientServer, l net.Listener) error {
	if srv.TLSConfig != nil {
		return srv.ServeTLS(l, "", "")
	}
	return srv.Serve(srv.lane.Listener(l))
}

// Run serves on l until ctx ends, then drains: no pull under way is cut before
// shutdown_timeout has passed (see pulls.go). It closes the node.
func (n *Node) Run(ctx context.Context, l net.Listener) error {
	srv := n.server()
	served := make(chan error, 1)
	go func() { served <- serve(srv, l) }()
	listening, stop := context.WithCancel(context.WithoutCancel(ctx))
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		n.cluster.Listen(listening)
	}()
	warming, cool := context.WithCancel(context.WithoutCancel(ctx))
	var cooled sync.WaitGroup
	cooled.Go(func() {
		n.cluster.AwaitOthers(warming)
		keepWarm(warming, n)
	})
	cooled.Go(func() { cluster.KeepCopies(warming, n.cluster) })
	cooled.Go(func() { cluster.KeepDirectory(warming, n.cluster) })
	cooled.Go(func() { getCertificates(warming, n, l.Addr()) })
	cooled.Go(func() { (&troubleLog{broken: n.reports.broken, log: n.log}).run(warming) })
	cooled.Go(func() { n.events.live.Run(warming) })
	cooled.Go(func() { (&evictionLog{counts: n.reports.evictions, log: n.log}).run(warming) })
	n.log.Info("serving", "address", l.Addr().String())
	err := n.awaitEnd(ctx, served)
	cool()
	cooled.Wait()
	err = n.drain(context.WithoutCancel(ctx), srv, err)
	stop()
	<-listened
	return err
}

// drain ends what the server has under way and closes the node. failed is why
// serving ended, nil if it was asked to end.
func (n *Node) drain(ctx context.Context, srv *clientServer, failed error) error {
	n.ready.Store(false)
	n.tell(Draining)
	n.events.live.Close() // they would hold up the drain
	ctx, cancel := context.WithTimeout(ctx, n.registries.cfg().ShutdownTimeout)
	defer cancel()
	if failed == nil {
		var secured sync.WaitGroup
		secured.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, n.registries.cfg().ShutdownTimeout/2) // the rest is for pulls
			defer cancel()
			cluster.Secure(ctx, n.cluster)
		})
		n.awaitQuiet(ctx)
		secured.Wait()
		cluster.HandOverRest(ctx, n.cluster) // what pulls brought while the node left
	}
	err := failed
	if cut := errors.Join(srv.lane.Shutdown(ctx), srv.Shutdown(ctx)); cut != nil {
		n.log.Warn("pulls cut because shutdown_timeout passed", "error", cut)
		err = errors.Join(err, srv.Close())
	}
	cluster.HandOverRest(ctx, n.cluster) // and those that took longer
	return errors.Join(err, n.Close(ctx))
}

// awaitEnd waits until the node is to drain, or serving fails. Meanwhile the node
// becomes ready.
func (n *Node) awaitEnd(ctx context.Context, served <-chan error) error {
	met := n.met(ctx)
	for {
		select {
		case <-met:
			n.ready.Store(true)
			n.log.Info("ready for clients", "members", n.cluster.Size())
			n.tell(Ready)
			met = nil
		case err := <-served:
			return fmt.Errorf("serving: %w", err)
		case <-n.leaving:
			n.log.Info("draining", "within_ms", wait.Milliseconds(n.registries.cfg().ShutdownTimeout))
			return nil
		case <-ctx.Done():
			n.log.Info("draining", "within_ms", wait.Milliseconds(n.registries.cfg().ShutdownTimeout))
			n.cluster.Restarting(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// met is closed when the node knows other members, or that there are none.
func (n *Node) met(ctx context.Context) <-chan struct{} {
	met := make(chan struct{})
	go func() {
		defer close(met)
		n.cluster.AwaitOthers(ctx)
		n.acme.await(ctx)
	}()
	return met
}

// awaitQuiet keeps the port open for pulls under way. Meanwhile /_/ready sends
// new clients to other nodes. If they come all the same, half of the drain's time
// is left for what is still being sent then.
func (n *Node) awaitQuiet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, n.registries.cfg().ShutdownTimeout/2)
	defer cancel()
	n.pulls.quiet(ctx)
}

// leave answers POST /_/leave: the node hands over what others are to keep, and
// ends. The answer comes when that is done, and says what was handed over.
func (n *Node) leave(w http.ResponseWriter, r *http.Request) {
	if n.cfg.Cluster == nil {
		reply.Fail(w, http.StatusConflict, reply.Error{Code: "UNSUPPORTED", Message: cluster.ErrAlone.Error()})
		return
	}
	n.log.InfoContext(r.Context(), "leaving the cluster for good", "client", n.gate.Address(r).String())
	n.ready.Store(false)
	// The node leaves even if the client that asked for it goes away.
	done, err := n.cluster.HandOver(context.WithoutCancel(r.Context()))
	if err != nil {
		reply.Fail(w, http.StatusConflict, reply.Error{Code: "UNSUPPORTED", Message: err.Error()})
		return
	}
	reply.JSON(w, done)
	n.leaveOnce.Do(func() { close(n.leaving) })
}
