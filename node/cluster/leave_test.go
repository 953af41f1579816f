package cluster

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
)

// A node that leaves just after it started waits until it knows what it holds; not for a disk that
// fails, nor for ever.
func TestWhoLeavesKnowsWhatItHolds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		slow    time.Duration // until the directory can be listed
		dead    bool          // the directory can't be used
		atLeast time.Duration
		most    time.Duration
		known   int
	}{
		"at once":         {most: time.Second, known: 1},
		"a large one":     {slow: time.Minute, atLeast: time.Minute, most: time.Minute + listTime, known: 1},
		"one without end": {slow: time.Hour, atLeast: leaveListTime, most: leaveListTime + listTime},
		"a dead disk":     {dead: true, most: listTime + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir() // it is removed outside of the bubble
			synctest.Test(t, func(t *testing.T) {
				first := grants.OpenShard(dir, cache.Options{})
				content := []byte("content")
				if _, err := first.Put(t.Context(), digest.FromBytes(content), "r.test", "", content); err != nil {
					t.Fatal(err)
				}
				if err := first.Close(); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				shard := grants.OpenShard(dir, cache.Options{Fault: func(op, _ string) error {
					switch {
					case op == "list":
						<-time.After(time.Until(began.Add(test.slow)))
					case op == "enter" && test.dead:
						return errors.New("it is dead")
					}
					return nil
				}})
				awaitListed(t.Context(), &Cluster{cfg: Config{Log: slog.New(slog.DiscardHandler)}}, shard)
				if took := time.Since(began); took < test.atLeast || took > test.most {
					t.Errorf("it took %v", took)
				}
				if got := len(shard.Blobs()); got != test.known {
					t.Errorf("%d blobs are known", got)
				}
				if err := shard.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
