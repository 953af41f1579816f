package live

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/node/figures"
)

// A screen is a client's end of an answer: what was written, and how a write goes.
type screen struct {
	mu      sync.Mutex
	header  http.Header
	text    bytes.Buffer
	flushed int
	stuck   chan struct{} // writes wait for it; nil: they do not
}

func newScreen() *screen { return &screen{header: http.Header{}} }

func (s *screen) Header() http.Header { return s.header }
func (s *screen) WriteHeader(int)     {}

func (s *screen) Write(p []byte) (int, error) {
	if s.stuck != nil {
		<-s.stuck
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushed++
}

// String is what came so far.
func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// events are the names of the events that came, but figures.
func (s *screen) events() (out []string) {
	for line := range strings.Lines(s.String()) {
		if name, ok := strings.CutPrefix(line, "event: "); ok && name != "figures\n" {
			out = append(out, strings.TrimSpace(name))
		}
	}
	return out
}

// A world is what a Live looks at.
type world struct {
	looks   atomic.Int64
	members atomic.Int64
	sent    atomic.Int64
	mu      sync.Mutex
	pulls   []Pull
}

func (w *world) live() *Live {
	return New(Config{
		Sent: func() (m figures.Minute) {
			m[figures.MissSent] = w.sent.Load()
			return m
		},
		Pulls: func() []Pull {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.pulls
		},
		Topics: []Topic{
			{"figures", 1, func() any { return w.looks.Add(1) }},
			{"members", 1, func() any { return w.members.Load() }},
		},
	})
}

// listen serves a screen until ctx ends or the Live ends it.
func listen(ctx context.Context, l *Live, s http.ResponseWriter, see func(Pull) (Pull, bool)) (ended chan error) {
	ended = make(chan error, 1)
	r := httptest.NewRequest(http.MethodGet, "/_/events", nil).WithContext(ctx)
	go func() { ended <- l.Serve(s, r, Viewer{From: "somebody", See: see, Hello: "hello"}) }()
	return ended
}

func all(p Pull) (Pull, bool) { return p, true }

// run runs a Live in a bubble until the test ends.
func run(t *testing.T, l *Live) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx)
	}()
	t.Cleanup(func() {
		l.Close()
		stop()
		<-done
	})
}

func TestAListenerHearsAllAndThenWhatChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w world
		l, s := w.live(), newScreen()
		run(t, l)
		ended := listen(t.Context(), l, s, all)
		time.Sleep(3500 * time.Millisecond) // in the bubble
		synctest.Wait()
		if got, want := fmt.Sprint(s.events()), "[hello members pulls]"; got != want || !strings.HasPrefix(s.String(), "retry: 3000\n\nevent: hello\ndata: \"hello\"\n\n") {
			t.Errorf("it heard of %s, want %s, in:\n%s", got, want, s)
		}
		if n := strings.Count(s.String(), "event: figures\n"); n != 4 {
			t.Errorf("%d figures in three and a half seconds, want 4", n)
		}
		w.members.Store(7)
		time.Sleep(time.Second) // in the bubble
		synctest.Wait()
		if got, want := fmt.Sprint(s.events()), "[hello members pulls members]"; got != want || !strings.Contains(s.String(), "event: members\ndata: 7\n\n") {
			t.Errorf("it heard of %s, want %s", got, want)
		}
		for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"} {
			if got := s.header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		l.Disperse()
		if err := <-ended; err != nil || l.Listeners() != 0 {
			t.Errorf("dispersed: %v, %d listen", err, l.Listeners())
		}
	})
}

// However many listen, one sampler looks.
func TestOneSamplerLooksForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w world
		l := w.live()
		run(t, l)
		for range maxFrom {
			listen(t.Context(), l, newScreen(), all)
		}
		time.Sleep(10*time.Second + tick/2) // in the bubble
		if looks := w.looks.Load(); looks < 10 || looks > 12 {
			t.Errorf("%d looks in ten seconds for %d listeners", looks, maxFrom)
		}
		l.Disperse()
		synctest.Wait()
		time.Sleep(2 * time.Second) // in the bubble
		before := w.looks.Load()
		time.Sleep(time.Hour) // in the bubble
		if after := w.looks.Load(); after != before {
			t.Errorf("%d looks while nobody listened", after-before)
		}
	})
}

func TestListenersAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w world
		l := w.live()
		run(t, l)
		serve := func(from string) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			r := httptest.NewRequest(http.MethodGet, "/_/events", nil).WithContext(ctx)
			return l.Serve(newScreen(), r, Viewer{From: from, See: all})
		}
		for i := range maxListeners {
			r := httptest.NewRequest(http.MethodGet, "/_/events", nil).WithContext(t.Context())
			go func() { _ = l.Serve(newScreen(), r, Viewer{From: fmt.Sprint(i / maxFrom), See: all}) }()
		}
		synctest.Wait()
		if err := serve("another"); !errors.Is(err, ErrFull) {
			t.Errorf("beside %d: %v", l.Listeners(), err)
		}
		l.Disperse()
		synctest.Wait()
		for range maxFrom {
			listen(t.Context(), l, newScreen(), all)
		}
		synctest.Wait()
		if err := serve("somebody"); !errors.Is(err, ErrFull) {
			t.Errorf("one address has %d: %v", l.Listeners(), err)
		}
		if err := serve("another"); err != nil {
			t.Errorf("another address: %v", err)
		}
		l.Close()
		synctest.Wait()
		if err := serve("another"); !errors.Is(err, ErrEnding) || l.Listeners() != 0 {
			t.Errorf("after the end: %v, %d listen", err, l.Listeners())
		}
	})
}

// One that does not read holds up nobody, and is dropped.
func TestASlowListenerIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w world
		l, slow, quick := w.live(), newScreen(), newScreen()
		slow.stuck = make(chan struct{})
		run(t, l)
		ended := listen(t.Context(), l, slow, all)
		listen(t.Context(), l, quick, all)
		time.Sleep((maxQueue + 5) * time.Second) // in the bubble
		close(slow.stuck)
		if err := <-ended; err != nil || l.Listeners() != 1 {
			t.Errorf("%v, %d listen, want one", err, l.Listeners())
		}
		synctest.Wait()
		if n := strings.Count(quick.String(), "event: figures\n"); n < maxQueue {
			t.Errorf("the other heard %d figures", n)
		}
	})
}

func TestASilentStreamBeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, s := New(Config{Sent: func() (m figures.Minute) { return m }, Pulls: func() []Pull { return nil }}), newScreen()
		run(t, l)
		ended := listen(t.Context(), l, s, all)
		time.Sleep(lifetime - time.Second) // in the bubble
		if n := strings.Count(s.String(), ": nothing new\n\n"); n != int(lifetime/heartbeat)-1 {
			t.Errorf("%d heartbeats", n)
		}
		if err := <-ended; err != nil { // it does not go on for ever: its reader is let in again
			t.Error(err)
		}
	})
}

func TestAListenerHearsOfWhatItMaySee(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w world
		for i := range 2 * maxPulls {
			w.pulls = append(w.pulls, Pull{Registry: "r", Repository: fmt.Sprint(i), Digest: "d"})
		}
		w.pulls = append(w.pulls, Pull{Registry: "r", Repository: "secret"})
		l, one, other := w.live(), newScreen(), newScreen()
		run(t, l)
		listen(t.Context(), l, one, func(p Pull) (Pull, bool) { return p, p.Repository == "7" })
		listen(t.Context(), l, other, func(p Pull) (Pull, bool) {
			p.Digest = ""
			return p, p.Repository != "secret"
		})
		time.Sleep(2 * time.Second) // in the bubble
		synctest.Wait()
		for _, hears := range []struct {
			s           *screen
			pulls, more int
		}{{one, 1, 0}, {other, maxPulls, maxPulls}} {
			_, data, _ := strings.Cut(hears.s.String(), "event: pulls\ndata: ")
			data, _, _ = strings.Cut(data, "\n")
			var got seen
			if err := json.Unmarshal([]byte(data), &got); err != nil || len(got.Pulls) != hears.pulls || got.More != hears.more {
				t.Errorf("%v: %d pulls and %d more, want %d and %d", err, len(got.Pulls), got.More, hears.pulls, hears.more)
			}
			if strings.Contains(hears.s.String(), "secret") {
				t.Error("it heard of what it may not see")
			}
		}
		if strings.Contains(other.String(), `"digest"`) {
			t.Error("it heard of more than it may see")
		}
		w.mu.Lock()
		w.pulls = w.pulls[:1] // the end of what neither of them may see, or all
		w.mu.Unlock()
		time.Sleep(time.Second) // in the bubble
		synctest.Wait()
		if got := one.events(); got[len(got)-1] != "pulls" || !strings.Contains(one.String(), `{"pulls":[],"more":0}`) {
			t.Errorf("the pull has ended, and it heard %v", got)
		}
	})
}

// However many pulls are under way, each look judges a bounded number for each listener. One
// that sees all still hears how many there are.
func TestALookAtPullsIsBounded(t *testing.T) {
	t.Parallel()
	pulls := make([]Pull, 4*maxSeen)
	for _, test := range []struct {
		name                string
		all, may            bool
		judged, pulls, more int
	}{
		{"an admin", true, true, maxPulls, maxPulls, 4*maxSeen - maxPulls},
		{"one who may see all that comes", false, true, maxSeen, maxPulls, maxSeen - maxPulls},
		{"one who may see nothing", false, false, maxSeen, 0, 0},
	} {
		judged := 0
		v := Viewer{All: test.all, See: func(p Pull) (Pull, bool) {
			judged++
			return p, test.may
		}}
		if got := v.look(pulls); judged != test.judged || len(got.Pulls) != test.pulls || got.More != test.more {
			t.Errorf("%s: %d judged, %d told and %d more, want %d, %d and %d", test.name, judged, len(got.Pulls), got.More, test.judged, test.pulls, test.more)
		}
	}
	few := Viewer{All: true, See: all}
	if got := few.look(pulls[:3]); len(got.Pulls) != 3 || got.More != 0 {
		t.Errorf("of three: %d and %d more", len(got.Pulls), got.More)
	}
}

// What is sent counts in its minute, whether somebody listens or not.
func TestTheHourIsCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w world
		l := w.live()
		run(t, l)
		for minute := range int64(3) {
			w.sent.Add(10 * (minute + 1))
			l.Answered(time.Millisecond)
			time.Sleep(time.Minute) // in the bubble
		}
		h := l.Hour()
		for i, want := range []int64{10, 20, 30, 0} {
			if m := h.Minutes[figures.Minutes-4+i]; m[figures.MissSent] != want || m[figures.Requests] != min(want, 1) {
				t.Errorf("minute %d: %d bytes, %d requests, want %d bytes", i, m[figures.MissSent], m[figures.Requests], want)
			}
		}
		time.Sleep(2 * time.Hour) // in the bubble
		if sum := l.Hour().Sum(); sum != (figures.Minute{}) {
			t.Errorf("after two hours: %v", sum)
		}
	})
}
