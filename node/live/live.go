// Package live tells people who watch what happens now, as server-sent events (WHATWG HTML,
// section 9.2), and remembers the last hour.
//
// One sampler ([Live.Run]) looks at what it was given once a second while somebody listens: the
// [Topic]s, whose values all listeners hear, and the pulls under way, of which each listener
// hears what it may see ([Viewer]). It looks at figures only and waits for nothing. What has
// changed is put into each listener's queue; a listener that does not read is dropped, so that it
// holds up neither the sampler nor a drain. [Live.Serve] writes a queue to its client.
//
// Read live.go first, then sampler.go and listeners.go; recorder.go is the hour.
package live

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"oci-proxy/node/figures"
)

// A Pull is content on its way to clients, or to another member.
type Pull struct {
	Registry   string    `json:"registry"` // that the client named
	Repository string    `json:"repository"`
	Tag        string    `json:"tag,omitempty"`
	Digest     string    `json:"digest,omitempty"`
	Kind       string    `json:"kind"`           // blob, manifest, tag, tags or referrers
	Source     string    `json:"source"`         // hit, peer, miss …, as the log has it; Waiting before anything came
	Host       string    `json:"host,omitempty"` // that delivers: another member, or a host of the registry
	Done       int64     `json:"done"`           // bytes
	Total      int64     `json:"total"`          // bytes; -1: not known
	Waiters    int       `json:"waiters"`        // requests that get it
	Since      time.Time `json:"since"`
}

// Waiting is the source of a pull that nothing came of yet.
const Waiting = "waiting"

// A Topic is something that all listeners hear of.
type Topic struct {
	Name  string     // of its events
	Every int        // seconds from one look to the next
	Look  func() any // becomes JSON; waits for nothing
}

// Config is what a Live works with. All fields are needed.
type Config struct {
	Topics []Topic
	Pulls  func() []Pull         // under way, the earliest first; waits for nothing
	Sent   func() figures.Minute // bytes since start, by column; waits for nothing
}

// A Viewer is who listens.
type Viewer struct {
	From  string                    // whose listeners are counted together
	All   bool                      // it may see all pulls: See refuses none
	See   func(p Pull) (Pull, bool) // what of a pull it may see; false: nothing
	Hello any                       // what it hears first; becomes JSON
}

// Errors of Serve, before anything is written.
var (
	ErrFull   = errors.New("too many listen to what happens now: try again later, or close another page")
	ErrEnding = errors.New("the node ends: ask another")
)

const (
	// maxListeners bounds who listens at a time, and maxFrom those that are counted together.
	maxListeners = 64
	maxFrom      = 16
	// maxQueue is how many events may wait for a listener. It is dropped when there are more.
	maxQueue = 64
	// maxPulls bounds the pulls that a listener hears of at a time.
	maxPulls = 100
	// maxSeen bounds the pulls that are looked at each second for a listener that may not see
	// all. Of those after them it hears nothing.
	maxSeen = 10 * maxPulls
	// tick is the time from one look to the next while somebody listens.
	tick = time.Second
	// heartbeat is after which silence a listener gets a comment, so that nothing on the way
	// takes the connection for dead.
	heartbeat = 15 * time.Second
	// pieceTime is how long a listener may take to read what is written.
	pieceTime = 10 * time.Second
	// lifetime is how long an answer goes on. Its reader asks again, and is let in again.
	lifetime = 5 * time.Minute
	// retry is after what time a browser asks again.
	retry = 3 * time.Second
)

// A Live tells what happens now. Its methods may be called from any goroutine.
type Live struct {
	cfg       Config
	listeners *listeners
	hour      *recorder
}

// New returns a Live. Call Run, and Close in the end.
func New(cfg Config) *Live {
	return &Live{cfg: cfg, listeners: newListeners(), hour: newRecorder()}
}

// Answered counts a pull whose first byte took that long.
func (l *Live) Answered(first time.Duration) { l.hour.answered(time.Now(), first) }

// Hour returns what was counted in the last hour.
func (l *Live) Hour() *figures.Hour { return l.hour.now(time.Now(), l.cfg.Sent()) }

// Close ends all answers, and refuses more.
func (l *Live) Close() { l.listeners.end(true) }

// Disperse ends all answers. Those who listen ask again, and only who still may is let in.
func (l *Live) Disperse() { l.listeners.end(false) }

// Listeners returns how many listen.
func (l *Live) Listeners() int { return l.listeners.many() }

// Serve answers with events until the client leaves, a lifetime has passed, or the listener is
// dropped. It returns ErrFull or ErrEnding if it has written nothing.
func (l *Live) Serve(w http.ResponseWriter, r *http.Request, v Viewer) error {
	me, err := l.listeners.add(v)
	if err != nil {
		return err
	}
	defer l.listeners.remove(me)
	hello, err := json.Marshal(v.Hello)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	ctx, cancel := context.WithTimeout(r.Context(), lifetime)
	defer cancel()
	out := newStream(w)
	if out.write(opening(hello)) {
		out.follow(ctx, me)
	}
	return nil
}
