package gate

import (
	"context"
	"net/http"

	"oci-proxy/node/config"
)

// A policy is what one config says of who is let in.
type policy struct {
	access *access
	hosts  hosts
	auth   config.Auth
}

// access is who may use the node now.
func (g *Gate) access() *access { return g.now.Load().access }

// hosts are the names that the node answers to now.
func (g *Gate) hosts() hosts { return g.now.Load().hosts }

// guarded lets only users through to h.
func (g *Gate) guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.access().guard(h).ServeHTTP(w, r)
	})
}

// Prepare makes the gate of another config ready: its logins, addresses, names and patience.
// Until commit is called nothing has changed. Which addresses failed to log in is still
// known.
func (g *Gate) Prepare(cfg *config.Config) (commit func(), err error) {
	old := g.now.Load()
	known := old.access.logins
	if a, b := old.auth, cfg.Auth; a.Username != b.Username || a.Password != b.Password || a.HtpasswdFile != b.HtpasswdFile {
		if known, err = newLogins(cfg, g.log); err != nil {
			return nil, err
		}
	}
	next := &policy{accessOf(cfg, known, old.access.throttle, old.access.failures, g.log), newHosts(cfg), cfg.Auth}
	return func() {
		g.now.Store(next)
		g.turns.SetPatience(cfg.QueueTimeout)
		if former := old.access.logins; former != known {
			go closeLogins(former)
		}
	}, nil
}

// closeLogins ends logins that are no longer in force, once those under way are looked at.
func closeLogins(l *logins) {
	ctx, cancel := context.WithTimeout(context.Background(), hashTime)
	defer cancel()
	l.life.Close(ctx)
}
