package upstream

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// The log hears once that a registry fails, with the cause, and once that it does well again.
// Of one that somebody made up, and that never answered, nobody is warned.
func TestTheLogHearsHowRegistriesDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log testkit.Log
		status := 200
		c := faked(t, Registry{FollowRedirects: true}, func(*http.Request) (*http.Response, error) {
			return reply(status, map[int]string{200: "hello"}[status], "Docker-Distribution-Api-Version", "registry/2.0"), nil
		})
		home := c.named["reg.example.com"].home
		home.log = slog.New(slog.NewTextHandler(&log, nil))
		ask := func(with int) {
			t.Helper()
			status = with
			if _, err := opened(oci.Hurry(t.Context()), c, hello("reg.example.com")); (err != nil) != (with != 200) {
				t.Fatal(err)
			}
		}
		for range 2 {
			ask(200)
			ask(429)
			ask(429)
			ask(503)
			ask(404)
		}
		for text, want := range map[string]int{
			"level=WARN msg=\"registry fails\" registry=reg.example.com state=limited error=\"too many requests": 2,
			"level=WARN msg=\"registry fails\" registry=reg.example.com state=down error=":                       2,
			"level=INFO msg=\"registry does well again\" registry=reg.example.com for_ms=":                       2,
			"level=": 6,
		} {
			if got := log.Count(text); got != want {
				t.Errorf("%d times %s, want %d, in\n%s", got, text, want, &log)
			}
		}
		stranger := newHome("made-up.example.com", false)
		stranger.stranger, stranger.log = true, home.log
		stranger.failed(t.Context(), stranger.fail(oci.Unavailable, never, stranger.host, "no such host").cause)
		if log.Count("level=INFO msg=\"registry fails\" registry=made-up.example.com state=down error=\"no such host\"") != 1 {
			t.Errorf("the log: %s", &log)
		}
	})
}

// A registry that another member was told to leave alone is limited since then, and this node
// says why.
func TestAPauseOfAnotherMemberStands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := faked(t, Registry{}, func(*http.Request) (*http.Response, error) { return nil, context.Canceled })
		time.Sleep(time.Hour) // in the bubble: it has done well for that long
		began := time.Now()
		c.Pause("reg.example.com", 10*time.Minute)
		time.Sleep(6 * time.Minute) // in the bubble
		c.Pause("reg.example.com", 10*time.Minute)
		if s := c.Standings()[0]; s.State != Limited || !s.Since.Equal(began) || s.LastError == "" {
			t.Errorf("%+v, want it limited since %s", s, began)
		}
		time.Sleep(10*time.Minute + time.Second) // in the bubble
		if s := c.Standings()[0]; s.State != Up {
			t.Errorf("%+v after the pause", s)
		}
	})
}
