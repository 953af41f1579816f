package node

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstream"
)

// A Finding is what Look saw of one thing that the config names. Its text never holds a
// secret.
type Finding struct {
	Level string   // Fine, Doubtful or Wrong
	Keys  []string // keys that it is about, as in config.Problem; the nearest first
	Text  string
}

// The levels of findings.
const (
	Fine     = "ok"
	Doubtful = "warning"
	Wrong    = "error"
)

// LookTime is how long Look may take for each thing, and so for all of them.
const LookTime = 10 * time.Second

// An inspection looks at one thing.
type inspection struct {
	keys []string
	look func(context.Context) Finding // ends soon after its context, unless a disk hangs
}

// Look looks at what a config names, from this machine and as this user: ports, cache
// directories, registries with their logins, seeds. It looks at everything at the same
// time and starts no node. running reports whether a node answers on the config's port:
// it holds the ports then. The findings are in that order. The error is one of the
// config that a node would not start with.
func Look(ctx context.Context, cfg *config.Config, running func(context.Context) bool) ([]Finding, error) {
	quiet := slog.New(slog.DiscardHandler)
	files, err := openPasswords(cfg, noPasswords(), quiet)
	if err != nil {
		return nil, err
	}
	defer files.close()
	client, err := upstream.New(upstreams(cfg, files, hooks{}, quiet))
	if err != nil {
		return nil, fmt.Errorf("setting up the registries: %w", err)
	}
	defer client.Close()
	all := portInspections(cfg, running)
	all = append(all, diskInspections(cfg)...)
	all = append(all, registryInspections(cfg, client, func(string) bool { return false })...)
	all = append(all, seedInspections(cfg)...)
	return lookAt(ctx, all), nil
}

// lookAt makes all inspections at the same time. One that takes too long is found wrong.
func lookAt(ctx context.Context, all []inspection) []Finding {
	ctx, cancel := context.WithTimeout(ctx, LookTime)
	defer cancel()
	found := make([]chan Finding, len(all))
	for i, one := range all {
		found[i] = make(chan Finding, 1)
		go func() { found[i] <- one.look(ctx) }()
	}
	out := make([]Finding, len(all))
	for i, one := range all {
		out[i] = await(ctx, found[i])
		out[i].Keys = one.keys
	}
	return out
}

// await waits for a finding until ctx ends and a little longer.
func await(ctx context.Context, found <-chan Finding) Finding {
	select {
	case f := <-found:
		return f
	case <-ctx.Done():
	}
	select {
	case f := <-found:
		return f
	case <-time.After(time.Second):
		return wrong("no answer within %s", LookTime)
	}
}

func fine(format string, args ...any) Finding {
	return Finding{Level: Fine, Text: fmt.Sprintf(format, args...)}
}

func doubtful(format string, args ...any) Finding {
	return Finding{Level: Doubtful, Text: fmt.Sprintf(format, args...)}
}

func wrong(format string, args ...any) Finding {
	return Finding{Level: Wrong, Text: fmt.Sprintf(format, args...)}
}

// registryInspections look at the configured registries: their names, the way to them,
// TLS, and what they say of the login. The built-in registry is doubtful at most while it is
// not used: a machine without internet has no fault.
func registryInspections(cfg *config.Config, client *upstream.Client, used func(registry string) bool) (all []inspection) {
	for _, r := range cfg.Registries {
		look := func(ctx context.Context) Finding {
			f := lookAtRegistry(ctx, r, client)
			if f.Level == Wrong && cfg.BuiltIn(r) && !used(r.Host) {
				return doubtful("%s; this matters only if images are to come from there: the config sets nothing for it, and nothing has come from it yet; default_registry names another", f.Text)
			}
			return f
		}
		switch {
		case r.Offline:
			look = func(context.Context) Finding { return fine("not asked: it is configured as offline") }
		case cfg.Cluster != nil && !cfg.Cluster.Egress:
			look = func(context.Context) Finding { return fine("not asked: cluster.egress is false") }
		}
		all = append(all, inspection{[]string{"registries." + r.Host}, look})
	}
	return all
}

func lookAtRegistry(ctx context.Context, r config.Registry, client *upstream.Client) Finding {
	began := time.Now()
	g, err := client.Greet(ctx, r.Host)
	if err != nil {
		return wrong("%s", plainly(err, r.Host))
	}
	return greeted(g, time.Since(began), len(r.Logins()) > 0)
}

// vague are reasons whose cause says what happened.
var vague = regexp.MustCompile(`connection broke|its log says why`)

// plainly is an error of the upstream client about a registry, for operators. Its cause says
// little more than its reason, unless that is vague.
func plainly(err error, host string) string {
	if e, ok := oci.AsError(err); ok && !vague.MatchString(e.Reason) {
		plain := *e
		plain.Reason, plain.Err = cmp.Or(e.Inside, e.Reason), nil
		err = &plain
	}
	return strings.TrimPrefix(err.Error(), host+": ")
}

// greeted says what a registry thinks of the configured login, if there is one.
func greeted(g upstream.Greeting, took time.Duration, login bool) Finding {
	took = took.Round(time.Millisecond)
	switch {
	case g.Login:
		return fine("answers within %s and takes the login", took)
	case g.Unseen != "":
		return doubtful("answers, but its token server %s does not see the login; if you trust it, add it to realm_hosts", g.Unseen)
	case login:
		return doubtful("answers within %s without asking for a login, so nobody knows whether the login is right", took)
	case g.Asks && !g.Guests:
		return doubtful("answers, and lets in nobody without a login; set auth")
	default:
		return fine("answers within %s, no login needed", took)
	}
}
