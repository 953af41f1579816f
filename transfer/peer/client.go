package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/wait"
)

// ClientConfig is what a Client works with. All fields but Dial are needed.
type ClientConfig struct {
	Self      func() string // this node's id by now
	SelfNonce []byte        // this node's boot nonce, as gossip tells it to the others
	Keys      [][]byte      // the cluster's secrets; the first signs
	// Member returns what gossip tells of a node by now. It is asked for each
	// request and answers at once.
	Member func(id string) (Member, bool)
	Log    *slog.Logger
	// Hear hears how a member's way to a registry is, as it tells in its answers. It
	// answers at once. nil: nobody wants to know.
	Hear func(id, registry string, way mesh.Way)
	// Asked hears of each request, by the first part of its path, how it ended (ok, busy,
	// registry: that fails or has no such thing, or failed) and how long it took to the
	// header of the answer. It answers at once. nil: nobody wants to know.
	Asked func(kind, outcome string, took time.Duration)
	// Dead hears that the address of a member refuses connections, as it does once the
	// member's process has ended. It answers at once. nil: nobody wants to know.
	Dead func(id string, boot uint64)
	// Dial connects to a member's address. nil: over TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Patience is for tests on a busy machine: peeks, signs of life and TLS handshakes
	// may take that many times as long as in times.go. 0: once.
	Patience int
}

// patient returns how long this client allows for what takes d at most by times.go.
func (cfg *ClientConfig) patient(d time.Duration) time.Duration {
	return d * time.Duration(max(1, cfg.Patience))
}

// times are how long things take. Tests change them.
type times struct {
	call, peek, hung, progress time.Duration // until an answer is complete; hung is for a peek at a member that hangs
	busy                       time.Duration // how long a busy peer is asked again
}

// A Client asks other members. It is safe for concurrent use.
type Client struct {
	self   func() string
	nonce  []byte
	member roster
	log    *slog.Logger
	hear   func(id, registry string, way mesh.Way)
	asked  func(kind, outcome string, took time.Duration)
	times  times
	keys   keys
	number atomic.Uint64 // of the last request; it never begins anew
	life   *wait.Life    // of the pings
	links  links
}

// NewClient returns a Client. Close it.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	if cfg.Hear == nil {
		cfg.Hear = func(string, string, mesh.Way) {}
	}
	if cfg.Asked == nil {
		cfg.Asked = func(string, string, time.Duration) {}
	}
	if cfg.Dead == nil {
		cfg.Dead = func(string, uint64) {}
	}
	life := wait.NewLife()
	c := &Client{
		self: cfg.Self, nonce: cfg.SelfNonce, member: cfg.Member, log: cfg.Log, hear: cfg.Hear, asked: cfg.Asked, life: life,
		times: times{call: callTime, peek: cfg.patient(peekTime), hung: cfg.patient(hungTime), progress: cfg.patient(progressTime), busy: busyTime},
		links: links{life: life, member: cfg.Member, dial: cfg.Dial, handshake: cfg.patient(handshakeTime), dead: cfg.Dead, idle: newIdle(idleLinks), byID: map[string]*link{}},
	}
	c.SetKeys(cfg.Keys)
	return c
}

// SetKeys exchanges the cluster's secrets: the first signs from now on.
func (c *Client) SetKeys(keys [][]byte) { c.keys.set(keys) }

// Close ends the pings and closes idle connections. Open streams go on. Nothing
// new can be asked.
func (c *Client) Close() {
	c.links.close()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	c.life.Close(now)
}

// Healthy reports whether the member of that id is known and not in quarantine
// at the moment. One in quarantine may still be asked.
func (c *Client) Healthy(id string) bool { return c.links.healthy(id) }

// Lies reports whether the member of that id is in quarantine since it sent what cannot be
// true. Such a one is not asked what it holds.
func Lies(c *Client, id string) bool { return c.links.lies(id) }

// Peer returns the member of that id as a mesh.Peer. It does no I/O and does not
// check that there is such a member: if not, the calls fail.
func (c *Client) Peer(id string) mesh.Peer { return &remote{c, id} }

// Relayer returns the member of that id as a mesh.Relayer, as Peer does.
func (c *Client) Relayer(id string) mesh.Relayer { return &remote{c, id} }

// Stats returns the member's counters, at most 1 MiB of JSON. ctx and 39 s bound
// it. Question and answer are large enough that they get lost if the network swallows
// large packets, as blobs would. Errors are *mesh.PeerError.
func (c *Client) Stats(ctx context.Context, id string) (json.RawMessage, error) {
	a, err := c.small(ctx, id, ask{method: http.MethodGet, path: root + "stats", padded: true, word: true}, maxJSON, c.times.call)
	if err != nil {
		return nil, err
	}
	if !json.Valid(a.body) {
		return nil, c.garbled(a.link, errors.New("its counters are not JSON"))
	}
	return bytes.TrimSpace(a.body), nil
}

// fails makes an error of the peer itself.
func (c *Client) fails(id string, err error) error {
	return &mesh.PeerError{Peer: c.member.name(id), Err: err}
}
