package metrics

import (
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The metrics that are counted here.
var (
	buildInfo       = family{"build_info", gauge, []string{"version", "revision", "goversion"}, "Always 1. The labels say what runs."}
	httpRequests    = family{"http_requests_total", counter, []string{"kind", "code"}, "Requests of clients. Kind: blob, manifest (by digest), tag (a manifest by tag), tags, referrers, ping (/v2/), control (below /_/), page, or unknown. Code: the status of the answer; 499: the client left before it."}
	answerFirst     = family{"answer_first_byte_seconds", histogram, []string{"kind", "source"}, "Time from a pull's request, GET or HEAD, to the first byte of its answer. Source as in the log: hit, peer, miss, collapsed, checked, stale; error if it failed."}
	answerTimes     = family{"answer_seconds", histogram, []string{"kind", "source"}, "Time from a pull's request to the end of its answer, likewise."}
	staleAnswers    = family{"stale_answers_total", counter, []string{"registry"}, "Answers with a registry's last word while it fails."}
	pullWaits       = family{"pull_wait_seconds", histogram, nil, "Time that pulls wait for their turn."}
	upstreamAsked   = family{"upstream_requests_total", counter, []string{"registry", "kind", "code"}, "Requests to registries, each redirect and each try. Kind: blob, manifest (by digest), tag, tags, referrers, ping or token. Code: the status; error if no answer came. 429: the registry asks to come back later."}
	upstreamWaits   = family{"upstream_wait_seconds", histogram, []string{"registry"}, "Time that requests to a registry wait for their turn (upstream_requests)."}
	upstreamFirst   = family{"upstream_first_byte_seconds", histogram, []string{"registry"}, "Time from the turn of a request to a registry to the header of its answer, logins and redirects included."}
	upstreamTimes   = family{"upstream_answer_seconds", histogram, []string{"registry"}, "Time from the turn of a request to a registry to the end of its answer, or until it failed."}
	upstreamRetries = family{"upstream_retries_total", counter, []string{"registry"}, "Further tries of requests to a registry that failed."}
	tokens          = family{"upstream_tokens_total", counter, []string{"registry"}, "Tokens fetched from token servers."}
	peerAsked       = family{"peer_requests_total", counter, []string{"kind", "outcome"}, "Requests to other members, by the first part of their path below /peer/v1/. Outcome: ok, busy (it is asked again), registry (it tells that the registry fails or has no such thing), or failed."}
	peerTimes       = family{"peer_first_byte_seconds", histogram, []string{"kind"}, "Time until another member begins to answer, or the request fails."}
)

// metered lists them.
func metered() []family {
	return []family{
		buildInfo, httpRequests, answerFirst, answerTimes, staleAnswers, pullWaits,
		upstreamAsked, upstreamWaits, upstreamFirst, upstreamTimes, upstreamRetries, tokens, peerAsked, peerTimes,
	}
}

// Metrics are what is counted here. Its methods may be called from any goroutine.
type Metrics struct {
	build                   *prometheus.GaugeVec
	requests, stale         *prometheus.CounterVec
	first, whole, pullWaits *prometheus.HistogramVec
	pullWait                func() prometheus.Observer // the only one of pullWaits, once there is one
	outcomes                sync.Map                   // of outcome to *served: the parts of requests, first and whole

	asked, retries, tokens  *prometheus.CounterVec
	waits, upFirst, upWhole *prometheus.HistogramVec
	peers                   *prometheus.CounterVec
	peerTimes               *prometheus.HistogramVec
}

// New returns Metrics that have counted nothing. version is this program's, revision the commit
// that it was built from.
func New(version, revision string) *Metrics {
	m := &Metrics{
		build:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + buildInfo.name, Help: buildInfo.help}, buildInfo.labels),
		requests: httpRequests.counters(), stale: staleAnswers.counters(),
		first: answerFirst.times(), whole: answerTimes.times(), pullWaits: pullWaits.times(),
		asked: upstreamAsked.counters(), retries: upstreamRetries.counters(), tokens: tokens.counters(),
		waits: upstreamWaits.times(), upFirst: upstreamFirst.times(), upWhole: upstreamTimes.times(),
		peers: peerAsked.counters(), peerTimes: peerTimes.times(),
	}
	m.pullWait = sync.OnceValue(func() prometheus.Observer { return m.pullWaits.WithLabelValues() })
	m.build.WithLabelValues(version, revision, runtime.Version()).Set(1)
	return m
}

// all lists what Metrics count.
func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.build, m.requests, m.first, m.whole, m.stale, m.pullWaits, m.asked, m.waits, m.upFirst, m.upWhole, m.retries, m.tokens, m.peers, m.peerTimes,
	}
}

// An Answer is one that a client got.
type Answer struct {
	Kind         string // of the request, as http_requests_total has it
	Code         int    // its status
	Pull         bool   // of content; only then the fields below are set
	Registry     string // configured, or Other
	Source       string // where it came from
	Stale        bool   // it is the registry's last word
	First, Whole time.Duration
}

// Answered counts an answer to a client.
func (m *Metrics) Answered(a Answer) {
	if !a.Pull {
		m.requests.WithLabelValues(a.Kind, code(a.Code)).Inc()
		return
	}
	s := m.served(outcome{a.Kind, a.Source, code(a.Code)})
	s.requests.Inc()
	s.first.Observe(a.First.Seconds())
	s.whole.Observe(a.Whole.Seconds())
	if a.Stale {
		m.stale.WithLabelValues(a.Registry).Inc()
	}
}

// An outcome is what tells answers to pulls apart. There are few: no client makes any up.
type outcome struct{ kind, source, code string }

// A served counts the answers of one outcome. To look that up once costs less than three times.
type served struct {
	requests     prometheus.Counter
	first, whole prometheus.Observer
}

// served returns what counts the answers of an outcome.
func (m *Metrics) served(k outcome) *served {
	if one, ok := m.outcomes.Load(k); ok {
		return one.(*served)
	}
	one, _ := m.outcomes.LoadOrStore(k, &served{
		m.requests.WithLabelValues(k.kind, k.code), m.first.WithLabelValues(k.kind, k.source), m.whole.WithLabelValues(k.kind, k.source),
	})
	return one.(*served)
}

// PullWaited counts how long a pull waited for its turn.
func (m *Metrics) PullWaited(took time.Duration) {
	m.pullWait().Observe(took.Seconds())
}

// PeerAsked counts a request to another member.
func (m *Metrics) PeerAsked(kind, outcome string, took time.Duration) {
	m.peers.WithLabelValues(kind, outcome).Inc()
	m.peerTimes.WithLabelValues(kind).Observe(took.Seconds())
}

// Of is the part for requests to one registry, configured or Other. It implements
// upstream.Meter. What alerts wait for is there from the start, at 0: Prometheus sees no
// increase in a series that begins at 1.
func (m *Metrics) Of(registry string) *Registry {
	m.stale.WithLabelValues(registry)
	for _, kind := range []string{"blob", "manifest", "tag", "tags", "referrers", "token"} {
		m.asked.WithLabelValues(registry, kind, code(http.StatusTooManyRequests))
	}
	for _, refusal := range []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden} {
		m.asked.WithLabelValues(registry, "token", code(refusal))
	}
	return &Registry{
		name: registry, asked: m.asked, retries: m.retries.WithLabelValues(registry), tokens: m.tokens.WithLabelValues(registry),
		waits: m.waits.WithLabelValues(registry), first: m.upFirst.WithLabelValues(registry), whole: m.upWhole.WithLabelValues(registry),
	}
}

// A Registry counts requests to one registry.
type Registry struct {
	name                string
	asked               *prometheus.CounterVec
	retries, tokens     prometheus.Counter
	waits, first, whole prometheus.Observer
}

// Asked counts a request that was sent, and the status of its answer; 0: none came.
func (r *Registry) Asked(kind string, status int) {
	r.asked.WithLabelValues(r.name, kind, code(status)).Inc()
}

// Retried counts another try.
func (r *Registry) Retried() { r.retries.Inc() }

// Token counts a token that was fetched.
func (r *Registry) Token() { r.tokens.Inc() }

// Waited counts how long a request waited for its turn.
func (r *Registry) Waited(took time.Duration) { r.waits.Observe(took.Seconds()) }

// Began counts how long the header of an answer took.
func (r *Registry) Began(took time.Duration) { r.first.Observe(took.Seconds()) }

// Ended counts how long an answer took.
func (r *Registry) Ended(took time.Duration) { r.whole.Observe(took.Seconds()) }

// code is a status as a label. Servers may send any number, so those that no standard
// names are one.
func code(status int) string {
	switch {
	case status == 0:
		return "error"
	case status > 0 && status < len(codes) && codes[status] != "":
		return codes[status]
	default:
		return Other
	}
}

// codes are the labels of those that have one of their own.
var codes = func() (all [600]string) {
	const gone = 499 // as the log has it
	for status := range all {
		if status == gone || http.StatusText(status) != "" {
			all[status] = strconv.Itoa(status)
		}
	}
	return all
}()
