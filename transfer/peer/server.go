package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/trace"
	"oci-proxy/transfer/wait"
	"oci-proxy/transfer/wire"
)

// maxStrangers bounds the connections over which no member has asked anything
// yet. The oldest makes room for the next. Members have such connections too: they
// dial ahead, or have just connected.
const maxStrangers = 512

// ServerConfig is what a Server works with. All fields but Asks, Refuses, Out, Relays, Way, Leaves, Pause, Certificates and Directory are needed.
type ServerConfig struct {
	Name  string   // what this node calls itself in Cache-Status
	Nonce []byte   // this node's boot nonce, as gossip tells it to the others
	Keys  [][]byte // the cluster's secrets, all of which are accepted
	// Member returns what gossip tells of a node by now. It answers at once.
	Member func(id string) (Member, bool)
	Holder mesh.Holder
	// Asks reports whether this node may ask the registry. For a registry that it
	// may not ask it gives only what it holds, and takes nothing. nil: it may ask
	// all.
	Asks func(registry string) bool
	// Refuses says why this node's access rules refuse something of ref's repository to the
	// user whom a member asks for, nil if they do not. It answers at once. nil: there are no rules.
	Refuses func(user oci.User, ref oci.Ref) error
	// Out is this node's own way out, for members that ask a registry by way of it. nil:
	// it relays nothing. Relays reports whether it does so for a registry; nil: for all.
	Out    oci.Upstream
	Relays func(registry string) bool
	// Way returns how this node's way to the registry is, which each answer about it
	// tells. It answers at once. nil: none tells.
	Way func(registry string) mesh.Way
	// Peer returns the member of that id, which is asking this node, to take what it offers from
	// it: it lives, whatever gossip says. It can be asked until end is called, at least. nil: it
	// can't be.
	Peer func(id string) (p mesh.Peer, end func())
	// Leaves reports whether this node leaves for good: it takes nothing then that another
	// member offers. It answers at once. nil: it stays.
	Leaves func() bool
	// Pause hears that a registry has asked another member to be left alone for a time, an
	// hour at most. It returns at once. nil: nobody wants to know.
	Pause func(registry string, d time.Duration)
	// Keeper tells what is held, and does what operators want. nil: it refuses.
	Keeper Keeper
	// Tracer records what members ask, as part of their traces. nil: nothing is recorded.
	Tracer *trace.Tracer
	// Stats returns this node's counters, which become at most 1 MiB of JSON.
	Stats func() any
	// Examine answers what a member asks of this node's state, at most 4 KiB of JSON, by
	// what becomes at most 1 MiB of JSON. It ends with ctx. nil: nothing can be asked.
	Examine func(ctx context.Context, question []byte) (any, error)
	// Certificates answers what a member asks about the certificates of the clients' port, at
	// most 64 KiB, by what becomes at most 1 MiB of JSON. It holds private keys: it is called
	// only for what came over TLS or loopback. It ends with ctx. nil: nothing can be asked.
	Certificates func(ctx context.Context, sender string, question []byte) (any, error)
	// Directory hears what a member tells of its own blobs, at most 16 KiB. It reports whether
	// the member is to tell all again, and returns at once. nil: nobody wants to know.
	Directory func(sender string, message []byte) (again bool, err error)
	Log       *slog.Logger
}

// A Server answers other members. It is the handler of the peers' own
// listener. Clients' paths don't exist there.
type Server struct {
	log                 *slog.Logger
	member              roster
	gate                gate
	answers             *answers
	tracer              *trace.Tracer
	table               routes
	conns               *wire.Ledger
	pieceTime           time.Duration // tests shorten it
	refused, turnedAway atomic.Int64
	asked               atomic.Int64 // when a member last asked something, in unix nanoseconds; 0: never
}

// NewServer returns a Server.
func NewServer(cfg ServerConfig) *Server {
	a := newAnswers(cfg)
	s := &Server{
		log: cfg.Log, member: cfg.Member,
		gate:    gate{nonce: cfg.Nonce, member: cfg.Member, replays: newReplays(cfg.Member), vault: cfg.Certificates != nil},
		answers: a, tracer: cfg.Tracer, table: newRoutes(a), conns: wire.NewLedger(0, maxStrangers), pieceTime: pieceTime,
	}
	s.SetKeys(cfg.Keys)
	return s
}

// SetKeys exchanges the cluster's secrets, all of which are accepted.
func (s *Server) SetKeys(keys [][]byte) { s.gate.keys.set(keys) }

// Routes lists all that can be asked, by method and path. A path that ends in /
// is followed by a digest.
func (s *Server) Routes() []string { return s.table.list() }

// Counts are numbers of requests since the start.
type Counts struct {
	Refused int64 // got a bare 404: malformed, stale, or not signed by a member
	Busy    int64 // were told to come back
}

// Counts returns how many requests were not answered so far.
func (s *Server) Counts() Counts { return Counts{s.refused.Load(), s.turnedAway.Load()} }

// HTTP returns the peers' HTTP server, for Serve, or for ServeTLS with no files if
// there is a config (see ServerTLS). It bounds headers and idle connections;
// answers have deadlines of their own. Its ConnState and ConnContext are set: they
// keep strangers' connections few. Its Shutdown does not wait for connections over
// which nothing has come.
func (s *Server) HTTP(cfg *tls.Config) *http.Server {
	srv := &http.Server{
		Handler:                      s,
		TLSConfig:                    cfg,
		ReadHeaderTimeout:            headerTime,
		IdleTimeout:                  serverIdle,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		Protocols:                    new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	s.conns.Watch(srv)
	srv.RegisterOnShutdown(s.conns.CloseSilent)
	return srv
}

// LastAsked returns when a member last asked something, the zero time if none has.
func (s *Server) LastAsked() time.Time {
	at := s.asked.Load()
	if at == 0 {
		return time.Time{}
	}
	return time.Unix(0, at)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := wire.Pace(rw, r, s.pieceTime)
	defer s.caught(w)
	c, to, err := s.admit(w, r)
	if err != nil {
		s.refused.Add(1)
		s.log.Debug("request on the peers' port refused", "client", r.RemoteAddr, "error", err)
		// The same for all reasons. The rest of the connection goes unread.
		w.Header().Set("Connection", "close")
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.conns.Keep(r)
	s.asked.Store(time.Now().UnixNano())
	ctx, span := s.tracer.Begin(c.from().Into(c.Context()), "member", c.Header)
	if span.On() {
		span.Set("oci_proxy.node", s.answers.cfg.Name)
		span.Set("oci_proxy.kind", path.Dir(c.path))
	}
	defer func() { span.End(err) }()
	c.Request = c.WithContext(ctx)
	defer s.answered(w, c, time.Now())
	answer := &reply{Paced: w, key: c.key, request: c.mac}
	s.tellWay(answer, c)
	if !to.slots.take() {
		s.busy(answer)
		return
	}
	defer to.slots.free()
	if err = to.answer(answer, c); err != nil {
		s.fail(answer, c, err)
	}
}

// from is for whom the sender asks, by its own word.
func (c *call) from() oci.Caller {
	from := oci.Caller{Client: "member " + c.sender, User: c.user}
	if id := c.Header.Get(headerRequest); oci.IsRequestID(id) {
		from.Request = id
	}
	return from
}

// answered logs an answer.
func (s *Server) answered(w *wire.Paced, c *call, began time.Time) {
	s.log.DebugContext(c.Context(), "member answered", "peer", s.member.name(c.sender), "path", c.path, "registry", c.Registry,
		"image", c.Repository, "digest", c.Digest.String(), "status", w.Status(), "bytes", w.Sent(), "took_ms", wait.Milliseconds(time.Since(began)))
}

// tellWay tells how this node's way to the registry is that the call is about.
func (s *Server) tellWay(w *reply, c *call) {
	if s.answers.cfg.Way == nil || c.Registry == "" {
		return
	}
	if way := encodeWay(s.answers.cfg.Way(c.Registry)); way != "" {
		w.Header().Set(headerWay, way)
	}
}

// admit lets in a request that can be understood.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) (*call, route, error) {
	c, err := s.gate.admit(w, r)
	if err != nil {
		return nil, route{}, err
	}
	to, err := s.table.understand(c)
	return c, to, err
}

// caught ends a request that failed by a bug. It lets the connection of an
// aborted request be closed.
func (s *Server) caught(w *wire.Paced) {
	fault := recover()
	if fault == nil {
		return
	}
	if err, ok := fault.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
		s.log.Error("a peer's request failed by a bug; please report it", "error", fmt.Sprint(fault), "stack", string(debug.Stack()), "status", w.Status())
	}
	panic(http.ErrAbortHandler)
}

// refuse writes an answer that tells of a failure.
func refuse(w http.ResponseWriter, status int, failed string) {
	h := w.Header()
	h.Del("Content-Type")
	h.Set("Content-Length", "0")
	h.Set(headerFailure, failed)
	w.WriteHeader(status)
}

// fail answers a request that failed before its answer began: with the
// registry's failure or with this node's.
func (s *Server) fail(w *reply, c *call, err error) {
	if c.Context().Err() != nil {
		panic(http.ErrAbortHandler) // nobody is there
	}
	e, upstream := errors.AsType[*oci.Error](err)
	p, node := errors.AsType[*mesh.PeerError](err)
	switch {
	case node && p.Busy, upstream && e.Kind == oci.Busy:
		s.busy(w)
	case errors.Is(err, errNotMine): // the registry has not failed: other nodes may ask it
		s.log.DebugContext(c.Context(), "peer refused: this node does not ask that registry", "peer", s.member.name(c.sender), "registry", c.Registry)
		refuse(w, http.StatusForbidden, failedPeer)
	case errors.Is(err, mesh.ErrUnwanted): // nothing is wrong
		s.log.DebugContext(c.Context(), "copy not taken from a peer", "peer", s.member.name(c.sender), "registry", c.Registry, "error", err)
		refuse(w, http.StatusInsufficientStorage, failedPeer)
	case errors.Is(err, errRules):
		s.log.Info("peer refused: it asks for a user to whom the access rules of this node refuse it", "peer", s.member.name(c.sender), "registry", c.Registry, "image", c.Repository, "error", err)
		refuse(w, http.StatusForbidden, failedRules)
	case node:
		s.broke(w, c, err)
	case upstream:
		w.Header().Set(headerError, encodeError(e))
		refuse(w, statusOf(e.Kind), failedUpstream)
	case errors.Is(err, context.DeadlineExceeded): // of inTime, if its cause was lost
		w.Header().Set(headerError, encodeError(oci.LateError(c.Ref, nil)))
		refuse(w, statusOf(oci.Timeout), failedUpstream)
	default:
		s.broke(w, c, err)
	}
}

// broke tells that this node failed, whatever the registry would say.
func (s *Server) broke(w *reply, c *call, err error) {
	s.log.WarnContext(c.Context(), "could not answer a peer", "peer", s.member.name(c.sender), "registry", c.Registry, "digest", c.Digest.String(), "error", err)
	refuse(w, http.StatusInternalServerError, failedPeer)
}

// busy asks the sender to come back.
func (s *Server) busy(w *reply) {
	s.turnedAway.Add(1)
	w.Header().Set("Retry-After", "0.2")
	refuse(w, http.StatusServiceUnavailable, failedBusy)
}
