package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"oci-proxy/node/cluster"
	"oci-proxy/node/config"
	"oci-proxy/node/figures"
	"oci-proxy/node/gate"
	"oci-proxy/node/reply"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstream"
)

// A doctor looks at what keeps a node from working: at the node and its cluster, or at
// the way to a registry. It looks from this node, and has the other members look from
// theirs.
type doctor struct {
	registries *registries
	cluster    *cluster.Cluster
	reports    *reports
	upstream   *upstream.Client // that pulls go by
	passwords  *atomic.Pointer[passwords]
	mark       func() string
	gate       *gate.Gate
	log        *slog.Logger
	slots      chan struct{} // how many may look at a time
}

// doctorSlots is how many examinations a node makes at a time for its own operators.
const doctorSlots = 2

// maxDoctor bounds what is read of a request for an examination, in bytes.
const maxDoctor = 1 << 10

// Skipped is the level of a step that was not made, as its text says why.
const Skipped = "skipped"

// A step is one thing that was looked at: a line of the answer to /_/doctor. Its names are
// outward. It never holds a secret.
type step struct {
	Node   string `json:"node"`             // the member that looked; "" for what takes all of them
	About  string `json:"about"`            // node, cluster, or the host of a registry
	Step   string `json:"step"`             // what was looked at, in a word
	Level  string `json:"level"`            // Fine, Doubtful, Wrong or Skipped
	Text   string `json:"text"`             // what was seen
	Advice string `json:"advice,omitempty"` // what to do, unless the text says it
	TookMS int64  `json:"took_ms"`
}

// A question is what one member asks another.
type question struct {
	Target string `json:"target,omitempty"` // a registry or an image by its full name; "": the node itself
}

// An opinion is a member's answer.
type opinion struct {
	Began time.Time `json:"began"` // by its own clock, as Ended
	Ended time.Time `json:"ended"`
	Ring  string    `json:"ring,omitempty"`
	Steps []step    `json:"steps"`
}

// maxSteps bounds the steps that another member tells of.
const maxSteps = 1024

// ServeHTTP answers POST /_/doctor, {"target": a registry, an image, or nothing}. The answer
// has a line of JSON for each step, and one at the end.
func (d *doctor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !typed(w, r, "application/json") {
		return
	}
	var ask question
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxDoctor)).Decode(&ask)
	to, wrong := d.parse(ask.Target)
	if err = errors.Join(err, wrong); err != nil {
		reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "UNSUPPORTED", Message: `the body must be {"target": "a registry or an image, or nothing"}: ` + err.Error()})
		return
	}
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	default:
		reply.Fail(w, http.StatusServiceUnavailable, reply.Error{Code: "UNAVAILABLE", Message: "this node is being examined already: try again when that is done"})
		return
	}
	d.log.Info("an examination begins", "target", to.name(), "client", d.gate.Address(r).String())
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out, conn := json.NewEncoder(w), http.NewResponseController(w)
	done := struct {
		Done     bool `json:"done"`
		Failed   int  `json:"failed"` // steps
		Warnings int  `json:"warnings"`
	}{Done: true}
	d.all(r.Context(), to, func(s step) {
		switch s.Level {
		case Wrong:
			done.Failed++
		case Doubtful:
			done.Warnings++
		}
		_ = out.Encode(s) // the client may be gone: r's context says so
		_ = conn.Flush()
	})
	_ = out.Encode(done) // as above
}

// all makes all steps, here and on the other members, and tells of each.
func (d *doctor) all(ctx context.Context, to aim, tell func(step)) {
	text, err := json.Marshal(question{to.name()})
	if err != nil {
		return // a string always encodes
	}
	said := make(chan []cluster.Examination, 1)
	go func() { said <- cluster.Examine(ctx, d.cluster, text) }()
	own := d.look(ctx, to)
	for _, s := range own.Steps {
		tell(s)
	}
	members := d.read(<-said)
	for _, m := range members {
		for _, s := range m.said.Steps {
			tell(s)
		}
	}
	for _, s := range d.compare(ctx, to, own, members) {
		tell(s)
	}
}

// answer answers another member's question.
func (d *doctor) answer(ctx context.Context, text []byte) (any, error) {
	var ask question
	if err := json.Unmarshal(text, &ask); err != nil {
		return nil, fmt.Errorf("reading the question: %w", err)
	}
	to, err := d.parse(ask.Target)
	if err != nil {
		return nil, err
	}
	return d.look(ctx, to), nil
}

// look makes the steps of this node.
func (d *doctor) look(ctx context.Context, to aim) opinion {
	o := opinion{Began: time.Now(), Ring: cluster.RingOf(d.cluster)}
	if to.registry == "" {
		o.Steps = d.self(ctx)
	} else {
		o.Steps = d.way(ctx, to)
	}
	o.Ended = time.Now()
	return o
}

// An aim is what is looked at.
type aim struct {
	registry string  // its canonical host; "": the node and the cluster
	ref      oci.Ref // an image of it, zero for none
}

// name is what other members understand.
func (a aim) name() string {
	switch {
	case a.ref.Digest != "":
		return a.registry + "/" + a.ref.Repository + "@" + a.ref.Digest.String()
	case a.ref.Tag != "":
		return a.registry + "/" + a.ref.Repository + ":" + a.ref.Tag
	case a.registry != "":
		return a.registry + "/"
	}
	return ""
}

// parse reads the name of a registry or an image. What has no slash is a registry if it is
// configured, has a dot, or is localhost; one may end in a slash.
func (d *doctor) parse(target string) (aim, error) {
	host, marked := strings.CutSuffix(target, "/")
	if target == "" {
		return aim{}, nil
	}
	if !strings.ContainsAny(host, "/@") {
		bare, _, _ := strings.Cut(host, ":")
		_, configured := d.registries.cfg().Registry(host)
		alias := slices.ContainsFunc(d.registries.cfg().Registries, func(r config.Registry) bool { return slices.Contains(r.Alias, host) })
		if marked || configured || alias || bare == "localhost" || strings.Contains(bare, ".") || strings.HasPrefix(host, "[") {
			ref, err := oci.ParseImage(host+"/x/y", d.registries.names()) // two parts, so that nothing is added
			if err == nil && ref.Repository != "x/y" {
				err = fmt.Errorf("%q names no registry", host)
			}
			return aim{registry: ref.Registry}, err
		}
	}
	ref, err := oci.ParseImage(target, d.registries.names())
	return aim{ref.Registry, ref}, err
}

// A consulted member is one that was asked, and what it said.
type consulted struct {
	cluster.Examination
	said opinion
}

// read reads what the other members say. They may say anything.
func (d *doctor) read(all []cluster.Examination) (out []consulted) {
	for _, e := range all {
		one := consulted{Examination: e}
		if e.Err == nil {
			one.Err = json.Unmarshal(e.Found, &one.said)
		}
		steps := one.said.Steps[:min(len(one.said.Steps), maxSteps)]
		for i := range steps {
			s := &steps[i]
			s.Node = e.Member.Name
			for _, text := range []*string{&s.About, &s.Step, &s.Level, &s.Text, &s.Advice} {
				*text = figures.Line(*text)
			}
			if !slices.Contains([]string{Fine, Doubtful, Wrong, Skipped}, s.Level) {
				s.Level = Doubtful // a later version's
			}
		}
		one.said.Steps = steps
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b consulted) int { return cmp.Compare(a.Member.Name, b.Member.Name) })
	return out
}

// quiet is a client for one examination: it remembers no outage, no token and no
// connection, so that each step is made.
func (d *doctor) quiet() (*upstream.Client, error) {
	return upstream.New(upstreams(d.registries.cfg(), d.passwords.Load(), hooks{mark: d.mark}, slog.New(slog.DiscardHandler)))
}

// stepOf makes a step of a finding.
func (d *doctor) stepOf(about, what string, f Finding) step {
	return step{Node: nameOf(d.registries.cfg()), About: about, Step: what, Level: f.Level, Text: f.Text}
}
