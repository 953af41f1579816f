package node

import (
	"context"
	"log/slog"
	"slices"

	"oci-proxy/node/health"
	"oci-proxy/transfer/wait"
)

// A troubleLog tells the log when something breaks, and when that is over: once for each code
// of /_/health.
type troubleLog struct {
	broken func() []error
	log    *slog.Logger
	told   []health.Code
}

// run looks from time to time until ctx ends.
func (t *troubleLog) run(ctx context.Context) {
	for wait.For(ctx, troubleEvery) == nil {
		t.look()
	}
}

// look tells what has changed since the last look.
func (t *troubleLog) look() {
	wrong := t.broken()
	for _, err := range wrong {
		if code := health.CodeOf(err); !slices.Contains(t.told, code) {
			t.told = append(t.told, code)
			t.log.Warn("degraded", "code", string(code), "error", err)
		}
	}
	now := health.CodesOf(wrong)
	t.told = slices.DeleteFunc(t.told, func(code health.Code) bool {
		over := !slices.Contains(now, code)
		if over {
			t.log.Info("no longer degraded", "code", string(code))
		}
		return over
	})
}
