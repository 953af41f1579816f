package node

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"oci-proxy/transfer/wait"
)

// An evictionLog tells the log what was evicted: a line for each registry and cause, and not
// one for each blob.
type evictionLog struct {
	counts func() map[string]map[string]int64 // blobs so far, by registry and cause
	log    *slog.Logger
	told   map[string]map[string]int64
}

// run tells from time to time until ctx ends, and once more then.
func (e *evictionLog) run(ctx context.Context) {
	for {
		err := wait.For(ctx, evictionsEvery)
		e.tell()
		if err != nil {
			return
		}
	}
}

// tell tells what was evicted since it last did.
func (e *evictionLog) tell() {
	now := e.counts()
	for _, registry := range slices.Sorted(maps.Keys(now)) {
		for _, cause := range slices.Sorted(maps.Keys(now[registry])) {
			if n := now[registry][cause] - e.told[registry][cause]; n > 0 {
				e.log.Info("blobs evicted to make room", "registry", registry, "cause", cause, "blobs", n)
			}
		}
	}
	e.told = now
}
