package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"oci-proxy/node/cluster"
	"oci-proxy/node/config"
	"oci-proxy/node/gate"
	"oci-proxy/node/keeper"
	"oci-proxy/node/reply"
	"oci-proxy/node/rules"
	"oci-proxy/transfer/holdings"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// A steward answers what operators ask about the images that the cluster holds, and does
// what they want with them: see purging.go, pinning.go and verifying.go.
type steward struct {
	cluster    *cluster.Cluster
	registries *registries
	sites      sites
	gate       *gate.Gate
	rules      *rules.Rules
	log        *slog.Logger
	life       *wait.Life
	looks      *wait.Calls[struct{}, *overview]
	last       atomic.Pointer[overview] // that somebody saw who may not change anything
}

const (
	// overviewTime bounds a look at what all members hold.
	overviewTime = 90 * time.Second
	// overviewAge is how old a look may be for those who may not change anything: each costs
	// all members some work.
	overviewAge = 10 * time.Second
	// maxAsk bounds what is read of a request about images, in bytes.
	maxAsk = 1 << 20
)

// newSteward returns the steward of a node.
func newSteward(n *Node, sites sites) *steward {
	life := wait.NewLife()
	return &steward{
		cluster: n.cluster, registries: n.registries, sites: sites, gate: n.gate, rules: n.rules, log: n.log,
		life: life, looks: wait.NewCalls[struct{}, *overview](life, overviewTime),
	}
}

// close ends looks that are under way.
func (s *steward) close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	s.life.Close(now)
}

// An overview is what all members hold, as they told just now.
type overview struct {
	at     time.Time
	held   []cluster.Held
	merged *holdings.Merged
	images []holdings.Image
	names  func() *imageIndex // of images; made once, when somebody asks for a name
}

// look asks all members what they hold.
func (s *steward) look(ctx context.Context) *overview {
	now := &overview{at: time.Now(), held: cluster.Holdings(ctx, s.cluster)}
	var all []*holdings.Inventory
	for _, one := range now.held {
		if one.Err == nil {
			all = append(all, one.Inventory)
		}
	}
	now.merged = holdings.Merge(all)
	now.images = now.merged.Images()
	now.names = sync.OnceValue(func() *imageIndex { return newImageIndex(now.images) })
	return now
}

// glance is look for those who only read. All who want it at a time share one look.
func (s *steward) glance(ctx context.Context, admin bool) (*overview, error) {
	if last := s.last.Load(); !admin && last != nil && time.Since(last.at) < overviewAge {
		return last, nil
	}
	now, _, err := s.looks.Do(ctx, struct{}{}, func(ctx context.Context) (*overview, error) { return s.look(ctx), nil })
	if err == nil && !admin {
		s.last.Store(now)
		time.AfterFunc(overviewAge, func() { s.last.CompareAndSwap(now, nil) }) // it is large
	}
	return now, err
}

// missing are the members that did not answer.
func (s *overview) missing() []cluster.Missing {
	out := []cluster.Missing{}
	for _, one := range s.held {
		if one.Err != nil {
			out = append(out, cluster.Missing{Name: one.Name, Reason: one.Err.Error()})
		}
	}
	return out
}

// An imageLine is what /_/images tells of an image. Sizes are in bytes.
type imageLine struct {
	Image      string    `json:"image"`
	Registry   string    `json:"registry"`
	Repository string    `json:"repository"`
	Tag        string    `json:"tag,omitempty"`
	Digest     string    `json:"digest"`
	Platforms  []string  `json:"platforms"`
	Size       int64     `json:"size"`
	Held       int64     `json:"held"` // of the size
	Used       time.Time `json:"used,omitzero"`
	Checked    time.Time `json:"checked,omitzero"` // when the registry last said what the tag means
	Pinned     bool      `json:"pinned"`
	Stale      bool      `json:"stale"` // checked too long ago to stand in while the registry fails
}

// images answers GET /_/images, with ?match=PATTERN for some. Those who may not change
// anything see the images of public registries alone, and of those what they may pull.
func (s *steward) images(w http.ResponseWriter, r *http.Request) {
	patterns, err := s.patterns(r.URL.Query()["match"])
	if err != nil {
		reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "UNSUPPORTED", Message: err.Error()})
		return
	}
	all := s.gate.Admin(r)
	now, err := s.glance(r.Context(), all)
	if err != nil {
		reply.Fail(w, http.StatusServiceUnavailable, reply.Error{Code: "UNAVAILABLE", Message: err.Error()})
		return
	}
	answer := struct {
		Images  []imageLine       `json:"images"`
		Others  *othersLine       `json:"others,omitempty"` // what belongs to no image that is known
		Missing []cluster.Missing `json:"missing"`
	}{Images: []imageLine{}, Missing: now.missing()}
	user := oci.Named(s.gate.User(r))
	for _, one := range now.images {
		visible := all || s.sites.public(one.Ref.Registry) && s.rules.Refuse(user, one.Ref) == nil
		if visible && chosen(patterns, one) {
			answer.Images = append(answer.Images, s.line(one))
		}
	}
	if all && len(patterns) == 0 {
		answer.Others = new(othersLine)
		answer.Others.Blobs, answer.Others.Bytes = now.merged.Others(now.images)
	}
	w.Header().Set("X-Cluster-Nodes", fmt.Sprintf("%d/%d", len(now.held)-len(answer.Missing), len(now.held)))
	reply.JSON(w, answer)
}

// An othersLine is what belongs to no image.
type othersLine struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
}

// chosen reports whether patterns choose an image; none choose all.
func chosen(patterns []holdings.Pattern, one holdings.Image) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p holdings.Pattern) bool { return p.Matches(one.Ref, one.Digest) })
}

// line is what is told of an image.
func (s *steward) line(one holdings.Image) imageLine {
	l := imageLine{
		Image: one.Name(shownRegistry), Registry: one.Ref.Registry, Repository: one.Ref.Repository, Tag: one.Ref.Tag, Digest: one.Digest.String(),
		Platforms: append([]string{}, one.Platforms...), Size: one.Size, Held: one.Held, Used: one.Used, Checked: one.Checked, Pinned: one.Pinned,
	}
	if one.Ref.Tag != "" {
		rules := s.sites.of(one.Ref.Registry).For(one.Ref)
		l.Stale = time.Since(one.Checked) > max(rules.StaleIfError, rules.TagTTL)
	}
	return l
}

// shownRegistry is a registry as people write it.
func shownRegistry(registry string) string {
	if registry == config.DockerHub {
		return "docker.io"
	}
	return registry
}

// patterns reads patterns. The error names the one that is wrong.
func (s *steward) patterns(texts []string) ([]holdings.Pattern, error) {
	names := holdings.Names{
		Default: s.registries.names().Default, Canonical: s.canonical, Shown: shownRegistry,
		Image: func(name string) (oci.Ref, error) { return oci.ParseImage(name, s.registries.names()) },
	}
	var out []holdings.Pattern
	for _, text := range texts {
		p, err := names.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("the pattern %.200q: %w", text, err)
		}
		out = append(out, p)
	}
	return out, nil
}

// canonical is a registry's own name.
func (s *steward) canonical(name string) string {
	if host, ok := s.registries.names().Alias[name]; ok {
		return host
	}
	return config.Canonical(name)
}

// errUnasked: a request to do something is not of the form that says what.
var errUnasked = errors.New("it does not say what")

// ask reads a request to do something, which check looks at, and reports false if it refused
// it. want is how the body is to look; check may return errUnasked.
func (s *steward) ask(w http.ResponseWriter, r *http.Request, into any, want string, check func() error) bool {
	if !typed(w, r, "application/json") {
		return false
	}
	err := errUnasked
	if json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAsk)).Decode(into) == nil {
		err = check()
	}
	if errors.Is(err, errUnasked) {
		err = errors.New("the body must be " + want)
	}
	if err != nil {
		reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "UNSUPPORTED", Message: err.Error()})
	}
	return err == nil
}

// order makes a member do something. What it could not do is an error.
func (s *steward) order(ctx context.Context, id string, o keeper.Order) (keeper.Answer, error) {
	text, err := cluster.Order(ctx, s.cluster, id, o)
	var a keeper.Answer
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err == nil && a.Error != "" {
		err = fmt.Errorf("%s", a.Error)
	}
	return a, err
}

// lines answers with lines of JSON, which work writes by put. put may be called by any
// goroutine that work waits for.
func lines(w http.ResponseWriter, work func(put func(any))) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out, conn := json.NewEncoder(w), http.NewResponseController(w)
	queue := make(chan any)
	go func() {
		defer close(queue)
		work(func(line any) { queue <- line })
	}()
	for line := range queue {
		_ = out.Encode(line) // the client may be gone: the request's context says so
		_ = conn.Flush()
	}
}
