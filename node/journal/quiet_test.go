package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// newLog returns a logger and what it writes.
func newLog() (*slog.Logger, *testkit.Log) {
	log := new(testkit.Log)
	return slog.New(New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))), log
}

func TestEqualLinesAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, out := newLog()
		for i := range 500 {
			err := fmt.Errorf("read 10.0.0.1:%d: reset", 40000+i)
			log.Warn("peer quarantined", "peer", "a", "offset", i, "took_ms", float64(i), "error", err)
		}
		if n := out.Count("quarantined"); n != 1 {
			t.Fatalf("%d lines at once", n)
		}
		time.Sleep(window) // in the bubble
		synctest.Wait()
		if !out.Has(`"not_logged":499`) || out.Count("quarantined") != 2 {
			t.Errorf("after the window: %s", out)
		}
		log.Warn("peer quarantined", "peer", "a", "error", errors.New("read 10.0.0.1:9: reset"))
		if out.Count("quarantined") != 3 {
			t.Errorf("a line of the next window: %s", out)
		}
	})
}

func TestOtherLinesAreNotEqual(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, out := newLog()
		for range 3 {
			log.Warn("blob not filled", "digest", "a", "error", errors.New("reset"))
			log.Warn("blob not filled", "digest", "b", "error", errors.New("reset"))
			log.Warn("blob not filled", "digest", "a", "error", errors.New("refused"))
			log.With("registry", "one").Warn("blob not filled", "digest", "a")
			log.With("registry", "two").Warn("blob not filled", "digest", "a")
			log.Debug("a step")
			log.Info(Request, "status", 502)
		}
		if n := out.Count("blob not filled"); n != 5 {
			t.Errorf("%d different lines, want 5: %s", n, out)
		}
		if out.Count("a step") != 3 || out.Count(`"msg":"request"`) != 3 {
			t.Errorf("steps and requests are not all there: %s", out)
		}
		time.Sleep(window) // in the bubble
		synctest.Wait()
		if n := out.Count(`"not_logged":2`); n != 5 {
			t.Errorf("%d lines tell of two more, want 5: %s", n, out)
		}
	})
}

// Lines that differ in what strangers choose are bounded by their message.
func TestLinesAlikeAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, out := newLog()
		const flood = 5 * mostKnown
		for i := range flood {
			log.Warn("stale manifest served", "tag", fmt.Sprint("t", i))
		}
		log.Warn("another message")
		if n := out.Count("stale manifest"); n != mostLike || !out.Has("another message") {
			t.Errorf("%d lines of %d", n, flood)
		}
		time.Sleep(window) // in the bubble
		synctest.Wait()
		if want := fmt.Sprintf(`"not_logged":%d`, flood-mostLike); !out.Has(want) {
			t.Errorf("no line has %s", want)
		}
	})
}

// What is forgotten because of others is told first, and is forgotten alone.
func TestForgettingTells(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, out := newLog()
		for range 3 {
			log.Warn("victim")
		}
		for i := range mostKnown {
			log.Warn(fmt.Sprint("message ", i))
		}
		if !out.Has(`"msg":"victim","not_logged":2`) {
			t.Error("what was held back of the victim is lost")
		}
		log.Warn("message 500")
		if out.Count(`"message 500"`) != 1 {
			t.Error("others were forgotten too")
		}
		time.Sleep(2 * window) // in the bubble
		synctest.Wait()
		if n := out.Count("victim"); n != 2 {
			t.Errorf("the victim is in %d lines", n)
		}
	})
}

func TestLinesNameTheirRequest(t *testing.T) {
	t.Parallel()
	log, out := newLog()
	ctx := oci.Caller{Request: "abc"}.Into(t.Context())
	log.InfoContext(ctx, "peer passed over", "peer", "b")
	log.Info("no request")
	log.InfoContext(ctx, Request, "request_id", "abc")
	if n := strings.Count(out.String(), `"request_id":"abc"`); n != 2 {
		t.Errorf("%d lines name the request: %s", n, out)
	}
}

func TestLogFromManyGoroutines(t *testing.T) {
	t.Parallel()
	log, out := newLog()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 500 {
				log.With("peer", fmt.Sprint(i%3)).Warn("message", "digest", fmt.Sprint(j%300))
			}
		})
	}
	all.Wait()
	if n := out.Count(`"msg":"message"`); n < mostLike || n > mostLike+1 {
		t.Errorf("%d lines", n)
	}
}
