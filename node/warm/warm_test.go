package warm

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/node/image"
)

// Each rule has its own time, counted from the end of a round, and failures end nothing.
func TestRulesAreKeptByTheirOwnTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var mu sync.Mutex
		at := map[string][]time.Duration{}
		pull := func(ctx context.Context, name string, want image.Platforms) (string, int64, error) {
			if len(want) != 1 || want[0].Architecture != "arm64" {
				t.Errorf("%s: %v", name, want)
			}
			mu.Lock()
			at[name] = append(at[name], time.Since(began))
			mu.Unlock()
			select {
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
			}
			if name == "bad" {
				return "", 0, errors.New("as the test wants it")
			}
			return "sha256:0", 1, nil
		}
		arm := image.Platforms{{OS: "linux", Architecture: "arm64"}}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		Keep(ctx, pull, []Rule{{[]string{"bad", "good"}, time.Minute, arm}, {[]string{"rare"}, time.Hour, arm}}, slog.New(slog.DiscardHandler))
		for name, want := range map[string][]time.Duration{
			"bad": {0, 80 * time.Second, 160 * time.Second}, "good": {10 * time.Second, 90 * time.Second, 170 * time.Second}, "rare": {0},
		} {
			if !slices.Equal(at[name], want) {
				t.Errorf("%s at %v, want %v", name, at[name], want)
			}
		}
	})
}
