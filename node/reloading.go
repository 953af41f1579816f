package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"oci-proxy/node/cluster"
	"oci-proxy/node/config"
	"oci-proxy/node/health"
	"oci-proxy/node/reply"
)

// A Source is where a running node finds its config again.
type Source struct {
	Load  func() (*config.Config, error) // reads and checks it
	Level *slog.LevelVar                 // the lowest level that is logged; nil: that stays
}

// ErrNoSource means that the node was not told where its config is.
var ErrNoSource = errors.New("this node has no config that it could read again")

// reloads are what a node knows of the times it read its config again.
type reloads struct {
	source Source
	turn   chan struct{}         // whoever reloads has put something in
	failed atomic.Pointer[error] // why the last one was refused, nil if it was not
}

func newReloads() reloads { return reloads{turn: make(chan struct{}, 1)} }

// health returns why the config is not the one in the file.
func (r *reloads) health() error {
	if err := r.failed.Load(); err != nil {
		first, _, _ := strings.Cut((*err).Error(), "\n")
		return health.Because(health.Config, fmt.Errorf("it was not reloaded, and the one before stays in force: %s", first))
	}
	return nil
}

// readAgain is Node.Reload.
func readAgain(ctx context.Context, n *Node) (config.Changes, error) {
	if n.reloads.source.Load == nil {
		return config.Changes{}, ErrNoSource
	}
	select {
	case n.reloads.turn <- struct{}{}:
		defer func() { <-n.reloads.turn }()
	case <-ctx.Done():
		return config.Changes{}, context.Cause(ctx)
	}
	wanted, err := n.reloads.source.Load()
	var changes config.Changes
	if err == nil {
		changes, err = apply(n, wanted)
	}
	if err != nil {
		n.reloads.failed.Store(&err)
		n.log.Error("config not reloaded: the one before stays in force", "error", err)
		return config.Changes{}, err
	}
	n.reloads.failed.Store(nil)
	for _, w := range wanted.Warnings {
		n.log.Warn("config warning", "warning", w.Error())
	}
	n.log.Info("config reloaded", "took_effect", strings.Join(changes.Live, " "), "needs_restart", strings.Join(changes.Restart, " "))
	return changes, nil
}

// apply puts another config in force as far as that can be. First all is made ready that may
// fail, then all is exchanged.
func apply(n *Node, wanted *config.Config) (config.Changes, error) {
	old := n.registries.cfg()
	cfg, changes := config.Merge(old, wanted)
	letIn, err := n.gate.Prepare(cfg)
	if err != nil {
		return changes, err
	}
	show, err := n.cert.prepare(cfg.TLS, n.log)
	if err != nil {
		return changes, err
	}
	renew, err := n.acme.prepare(cfg)
	if err != nil {
		return changes, err
	}
	before := n.passwords.Load()
	logins, err := openPasswords(cfg, before, n.log)
	if err != nil {
		return changes, err
	}
	registries, others, _ := upstreams(cfg, logins, hooksOf(n), n.log)
	ask, err := n.upstream.Prepare(registries, others)
	if err != nil {
		return changes, fmt.Errorf("setting up the registries: %w", err)
	}
	if slices.Contains(changes.Live, "cluster.secrets") {
		if err := n.cluster.Rekey(cfg.Cluster.Secrets); err != nil {
			return changes, err
		}
	}
	n.rules.Use(cfg)
	n.registries.use(cfg) // before logins are used: what comes by them may be private from now on
	letIn()
	show()
	renew()
	n.passwords.Store(logins)
	ask()
	logins.begin(cfg, before)
	showPage(n, cfg)
	tellRooms(n, old, cfg, changes)
	return changes, nil
}

// tellRooms tells the rooms of a config in force that hear of changes only.
func tellRooms(n *Node, old, cfg *config.Config, changes config.Changes) {
	if n.reloads.source.Level != nil {
		n.reloads.source.Level.Set(cfg.LogLevel)
	}
	n.registries.rebound()
	n.events.live.Disperse() // others may see other pulls now
	for _, r := range cfg.Registries {
		n.fetcher.Expect(r.Host)
	}
	if slices.ContainsFunc(changes.Live, func(path string) bool {
		return strings.HasPrefix(path, "registries.") || path == "default_registry" || path == "whitelist_mode"
	}) {
		cluster.Reload(n.cluster, cfg)
	}
	if !slices.EqualFunc(old.Warm, cfg.Warm, sameWarm) {
		n.warmer.changed()
	}
}

// sameWarm reports whether two schedules are the same.
func sameWarm(a, b config.Warm) bool {
	return a.Every == b.Every && slices.Equal(a.Images, b.Images) && slices.Equal(a.Platforms, b.Platforms)
}

// A reloaded is the answer to /_/reload.
type reloaded struct {
	TookEffect   []string `json:"took_effect"`
	NeedsRestart []string `json:"needs_restart"`
}

// answerReload answers POST /_/reload with a line of JSON: the keys whose changes took effect,
// and those that need a restart.
func answerReload(n *Node, w http.ResponseWriter, r *http.Request) {
	if !typed(w, r, "application/json") {
		return
	}
	changes, err := n.Reload(r.Context())
	if err != nil {
		reply.Fail(w, http.StatusConflict, reply.Error{Code: "UNSUPPORTED", Message: "the config was not reloaded, and the one before stays in force: " + err.Error()})
		return
	}
	line, err := json.Marshal(reloaded{append([]string{}, changes.Live...), append([]string{}, changes.Restart...)})
	if err != nil { // texts always encode
		line = []byte("{}")
	}
	w.Header().Set("Cache-Control", "no-store")
	reply.Body(w, "application/x-ndjson", append(line, '\n'))
}
