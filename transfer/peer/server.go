package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wire"
)

// Limits of what is answered at a time. Who comes beyond is told to come back.
const (
	bulkSlots    = 256  // blobs
	controlSlots = 1024 // small answers
	listSlots    = 32   // lists, which may be large and are held in memory
)

// maxStrangers bounds the connections over which no member has asked anything
// yet. The oldest makes room for the next. Members have such connections too: they
// dial ahead, or have just connected.
const maxStrangers = 512

// pieceTime is how long a peer may take for the next piece of an answer.
const pieceTime = time.Minute

// ServerConfig is what a Server works with. All fields but Asks are needed.
type ServerConfig struct {
	Name  string   // what this node calls itself in Cache-Status
	Nonce []byte   // this node's boot nonce, as gossip tells it to the others
	Keys  [][]byte // the cluster's secrets, all of which are accepted
	// Member returns what gossip tells of a node by now. It answers at once.
	Member func(id string) (Member, bool)
	Holder mesh.Holder
	// Asks reports whether this node may ask the registry. One that it may not is
	// no business of its: it gives what it has, and takes nothing. nil: any.
	Asks func(registry string) bool
	// Peer returns the member of that id for taking what it offers, nil if it
	// can't be asked.
	Peer func(id string) mesh.Peer
	// Stats returns what this node counts, which becomes at most 1 MiB of JSON.
	Stats func() any
	Log   *slog.Logger
}

// A Server answers other members. It is the handler of the peers' own
// listener; clients' paths don't exist there.
type Server struct {
	cfg                 ServerConfig
	table               map[string]route
	keys                keys
	replays             replays
	conns               *wire.Ledger
	bulk, control, list slots
	pieceTime           time.Duration // tests shorten it, and
	answerTime          time.Duration // this
	refused, turnedAway atomic.Int64
}

// NewServer returns a Server.
func NewServer(cfg ServerConfig) *Server {
	s := &Server{
		cfg: cfg, pieceTime: pieceTime, answerTime: answerTime,
		replays: replays{windows: map[string]*window{}, member: cfg.Member},
		bulk:    make(slots, bulkSlots), control: make(slots, controlSlots), list: make(slots, listSlots),
		conns: wire.NewLedger(0, maxStrangers),
	}
	s.table = s.routes()
	s.SetKeys(cfg.Keys)
	return s
}

// SetKeys exchanges the cluster's secrets, all of which are accepted.
func (s *Server) SetKeys(keys [][]byte) { s.keys.set(keys) }

// Counts are numbers of requests since the start.
type Counts struct {
	Refused int64 // got a bare 404: not of a member, not signed, not fresh or malformed
	Busy    int64 // were told to come back
}

// Counts returns what the server has not answered so far.
func (s *Server) Counts() Counts { return Counts{s.refused.Load(), s.turnedAway.Load()} }

// HTTP returns the peers' HTTP server, for Serve, or ServeTLS with no files if
// there is a config (see ServerTLS). It bounds headers and idle connections;
// answers have deadlines of their own. Its ConnState and ConnContext are set:
// they keep strangers' connections few. Its Shutdown does not wait for connections
// over which nothing has come.
func (s *Server) HTTP(cfg *tls.Config) *http.Server {
	srv := &http.Server{
		Handler:                      s,
		TLSConfig:                    cfg,
		ReadHeaderTimeout:            10 * time.Second,
		IdleTimeout:                  120 * time.Second,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		Protocols:                    new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	s.conns.Watch(srv)
	srv.RegisterOnShutdown(s.conns.CloseSilent)
	return srv
}

// slots are how many may do something at a time. nil has no bound.
type slots chan struct{}

// take takes a slot, if one is free.
func (s slots) take() bool {
	if s == nil {
		return true
	}
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// free gives it back.
func (s slots) free() {
	if s != nil {
		<-s
	}
}

// A call is a request that was let in.
type call struct {
	*http.Request
	query
	sender string // its id
	offset int64
	body   []byte
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := wire.Pace(rw, r, s.pieceTime)
	defer s.caught(w)
	c, to, err := s.admit(w, r)
	if err != nil {
		s.refused.Add(1)
		s.cfg.Log.Debug("peer request refused", "from", r.RemoteAddr, "why", err)
		// The same for all reasons. What else is on the connection goes unread.
		w.Header().Set("Connection", "close")
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.conns.Keep(r)
	w.Header().Set(headerMark, version)
	if !to.slots.take() {
		s.busy(w)
		return
	}
	defer to.slots.free()
	if err := to.answer(w, c); err != nil {
		s.fail(w, c, err)
	}
}

// caught ends a request that failed by a bug, and lets the connection of one
// that was aborted be closed.
func (s *Server) caught(w *wire.Paced) {
	fault := recover()
	if fault == nil {
		return
	}
	if err, ok := fault.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
		s.cfg.Log.Error("peer request failed by a bug", "fault", fault, "stack", string(debug.Stack()), "status", w.Status())
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
// registry's failure, or with one of this node.
func (s *Server) fail(w http.ResponseWriter, c *call, err error) {
	if c.Context().Err() != nil {
		panic(http.ErrAbortHandler) // nobody is there
	}
	e, speaks := errors.AsType[*oci.Error](err)
	p, peers := errors.AsType[*mesh.PeerError](err)
	switch {
	case peers && p.Busy:
		s.busy(w)
	case errors.Is(err, errNotMine): // the registry has not said so: others may ask it
		s.cfg.Log.Debug("peer asked for another's registry", "peer", s.name(c.sender), "registry", c.Registry)
		refuse(w, http.StatusForbidden, failedPeer)
	case peers:
		s.broke(w, c, err)
	case speaks:
		w.Header().Set(headerError, encodeError(e))
		refuse(w, statusOf(e.Kind), failedUpstream)
	case errors.Is(err, context.DeadlineExceeded): // of inTime, wherever its cause was lost
		w.Header().Set(headerError, encodeError(late(c.Registry)))
		refuse(w, statusOf(oci.Timeout), failedUpstream)
	default:
		s.broke(w, c, err)
	}
}

// broke tells that this node failed, whatever the registry would say.
func (s *Server) broke(w http.ResponseWriter, c *call, err error) {
	s.cfg.Log.Warn("peer request failed", "peer", s.name(c.sender), "registry", c.Registry, "digest", c.Digest.String(), "error", err)
	refuse(w, http.StatusInternalServerError, failedPeer)
}

// busy asks to come back.
func (s *Server) busy(w http.ResponseWriter) {
	s.turnedAway.Add(1)
	w.Header().Set("Retry-After", "0.2")
	refuse(w, http.StatusServiceUnavailable, failedBusy)
}

// name is what people call a member.
func (s *Server) name(id string) string {
	if m, ok := s.cfg.Member(id); ok {
		return m.Name
	}
	return id
}

var (
	errMalformed = errors.New("malformed request")
	errUnsigned  = errors.New("not signed by a member")
	errSeen      = errors.New("seen before, or too old to know")
	errNoPath    = errors.New("no such path")
)

// admit lets in the fresh, signed and well-formed requests of members. Nothing
// of a request is looked at before its signature is known to be right.
func (s *Server) admit(w *wire.Paced, r *http.Request) (*call, route, error) {
	path, raw, _ := strings.Cut(r.RequestURI, "?")
	if !r.ProtoAtLeast(1, 1) || !strings.HasPrefix(path, root) || len(r.Header.Values(headerAuth)) != 1 || len(r.Header.Values("Range")) > 1 || r.Header.Get("Expect") != "" {
		return nil, route{}, errMalformed
	}
	a, err := parseAuth(r.Header.Get(headerAuth))
	if err != nil {
		return nil, route{}, err
	}
	body, err := s.body(w, r)
	if err != nil {
		return nil, route{}, err
	}
	m, known := s.cfg.Member(a.sender)
	st := statement{
		receiver: s.cfg.Nonce, sender: a.sender, nonce: m.Nonce, number: a.number,
		method: r.Method, path: path, query: raw, span: r.Header.Get("Range"), body: body,
	}
	// Strangers' signatures are computed too, so that the time does not tell
	// who is a member.
	signed := st.signedBy(s.keys.all(), a.mac)
	if !signed || !known || len(m.Nonce) == 0 || len(s.cfg.Nonce) == 0 {
		return nil, route{}, errUnsigned
	}
	m.ID = a.sender
	if !s.replays.take(m, a.number) {
		return nil, route{}, errSeen
	}
	return s.understand(r, path, raw, a.sender, body)
}

// body reads the body of a POST. Nothing else has one.
func (s *Server) body(w *wire.Paced, r *http.Request) ([]byte, error) {
	switch {
	case r.Method != http.MethodPost && r.ContentLength == 0:
		return nil, nil
	case r.Method != http.MethodPost || r.ContentLength < 0 || r.ContentLength > maxOffer:
		return nil, errMalformed
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(10 * time.Second)) // without deadlines it waits for the sender to end
	b := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, b); err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	_ = control.SetReadDeadline(time.Time{}) // as above
	return b, nil
}

// understand finds out what is asked.
func (s *Server) understand(r *http.Request, path, raw, sender string, body []byte) (*call, route, error) {
	to, named, ok := s.route(r.Method, strings.TrimPrefix(path, root))
	if !ok {
		return nil, route{}, errNoPath
	}
	c := &call{Request: r, sender: sender, body: body}
	if c.offset, ok = wire.ParseRangeFrom(r.Header.Get("Range")); !ok {
		return nil, route{}, errMalformed
	}
	if !to.refers {
		return c, to, nil
	}
	var err error
	if c.query, err = parseQuery(raw); err != nil {
		return nil, route{}, err
	}
	if named != "" {
		if c.Digest, err = parseDigest(named); err != nil {
			return nil, route{}, err
		}
	}
	if !to.complete(c.query) {
		return nil, route{}, errQuery
	}
	return c, to, nil
}
