package membership

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/testkit"
)

var quietLog = slog.New(slog.DiscardHandler)

func TestGossipsLogIsQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := new(testkit.Log)
		q := newLogBridge(slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})))
		say := func(format string, args ...any) { fmt.Fprintf(q, format+"\n", args...) }
		for i := range 50 {
			say("[DEBUG] memberlist: Stream connection from=10.0.0.1:%d", i)
			say("[DEBUG] memberlist: Initiating push/pull sync with: x 10.0.0.1:%d", i)
			say("[ERR] memberlist: failed to receive: EOF from=10.0.0.1:%d", 1000+i)
		}
		say("[WARN] memberlist: Refuting an alive message for 'x' (10.0.0.1:1) meta:([1 2 3] VS [4 5])")
		say("Err: Could not set the deadline")
		say("[WARN] memberlist: Was able to connect to a over TCP but UDP probes failed, network may be misconfigured")
		if r.Has("over UDP") {
			t.Error("lost packets are logged at once: the node may advertise a wrong address")
		}
		time.Sleep(udpAfter) // in the bubble
		for range 2 {
			say("[WARN] memberlist: Was able to connect to b over TCP but UDP probes failed, network may be misconfigured")
		}
		want := `level=WARN msg="message from memberlist" text="failed to receive: EOF from=10.0.0.1:1000"` + "\n" +
			`level=WARN msg="message from memberlist" text="Refuting an alive message for 'x' (10.0.0.1:1)"` + "\n" +
			`level=WARN msg="message from memberlist" text="Err: Could not set the deadline"` + "\n" +
			`level=WARN msg="members answer over TCP but not over UDP: open the gossip port for UDP, or dead members are noticed late"` + "\n"
		var got strings.Builder
		for line := range strings.Lines(r.String()) {
			_, line, _ = strings.Cut(line, " ") // drops the time
			got.WriteString(line)
		}
		if got.String() != want {
			t.Errorf("logged:\n%swant:\n%s", got.String(), want)
		}

		time.Sleep(time.Minute) // in the bubble
		say("[ERR] memberlist: failed to receive: EOF from=10.0.0.1:7")
		if n := r.Count("failed to receive"); n != 2 {
			t.Errorf("%d lines after the second minute, want 2", n)
		}

		for i := range 10 * logLines { // a stranger chooses the text
			say("[ERR] memberlist: discarding packet with unacceptable label %q", fmt.Sprint("x", i))
		}
		if n := r.Count("unacceptable label"); n >= logLines {
			t.Errorf("a stranger caused %d lines", n)
		}
		time.Sleep(time.Minute) // in the bubble
		say("[INFO] memberlist: again")
		if !r.Has("dropped=901") || !r.Has("level=INFO") {
			t.Error("the log does not say how many lines were dropped")
		}
	})
}
