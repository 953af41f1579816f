package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"oci-proxy/transfer/oci"
)

func TestUpToTellsWhatComes(t *testing.T) {
	t.Parallel()
	partly := func(contentRange, body string) *http.Response {
		return reply(206, body, "Content-Range", contentRange)
	}
	for name, c := range map[string]struct {
		span   oci.Span
		reply  *http.Response
		want   oci.Stream // Offset and Size
		length int64
		body   string
		kind   oci.Kind // of the error, if reason is not ""
		reason string
	}{
		"just that":          {span: oci.Span{Offset: 1, Length: 3}, reply: partly("bytes 1-3/5", "ell"), want: oci.Stream{Offset: 1, Size: 5}, length: 3, body: "ell"},
		"from the beginning": {span: oci.Span{Length: 3}, reply: partly("bytes 0-2/5", "hel"), want: oci.Stream{Size: 5}, length: 3, body: "hel"},
		"the blob ends":      {span: oci.Span{Offset: 3, Length: 100}, reply: partly("bytes 3-4/5", "lo"), want: oci.Stream{Offset: 3, Size: 5}, length: 2, body: "lo"},
		"fewer than asked":   {span: oci.Span{Length: 4}, reply: partly("bytes 0-1/5", "he"), want: oci.Stream{Size: 5}, length: 2, body: "he"},
		"no size":            {span: oci.Span{Length: 3}, reply: partly("bytes 0-2/*", "hel"), want: oci.Stream{Size: -1}, length: 3, body: "hel"},
		"the whole":          {span: oci.Span{Offset: 1, Length: 3}, reply: reply(200, "hello"), want: oci.Stream{Size: 5}, length: -1, body: "hello"},
		"more than asked":    {span: oci.Span{Length: 3}, reply: partly("bytes 0-4/5", "hello"), kind: oci.Unavailable, reason: "wrong range"},
		"elsewhere":          {span: oci.Span{Offset: 2, Length: 3}, reply: partly("bytes 1-3/5", "ell"), kind: oci.Unavailable, reason: "wrong range"},
		"no such range":      {span: oci.Span{Offset: 9, Length: 3}, reply: reply(416, "", "Docker-Distribution-Api-Version", "registry/2.0"), kind: oci.Invalid, reason: "no such range"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked http.Header
			client := faked(t, Registry{FollowRedirects: true}, func(req *http.Request) (*http.Response, error) {
				asked = req.Header
				return c.reply, nil
			})
			s, length, err := client.UpTo(t.Context(), hello(reg), c.span)
			if want := fmt.Sprintf("bytes=%d-%d", c.span.Offset, c.span.End()-1); asked.Get("Range") != want {
				t.Errorf("asked for %q, want %q", asked.Get("Range"), want)
			}
			if c.reason != "" {
				wantError(t, err, c.kind, c.reason)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(s.Body)
			if err != nil || string(got) != c.body || length != c.length || s.Offset != c.want.Offset || s.Size != c.want.Size {
				t.Errorf("%q, %v of length %d: %+v", got, err, length, s)
			}
			_ = s.Body.Close()
		})
	}
}

// Requests that follow one another have one turn together, and keep it in between. Those
// that give way take only what is free.
func TestTurnsThatAreHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, l := loaded(t, 3) // of which two are for downloads
		close(l.done)
		turns := client.named[reg].turns
		read := func(ctx context.Context) error {
			s, _, err := client.UpTo(ctx, hello(reg), oci.Span{Length: 5})
			if err != nil {
				return err
			}
			_, err = io.ReadAll(s.Body)
			return errors.Join(err, s.Body.Close())
		}
		held, end := client.Turn(oci.Caller{Client: "a"}.Into(t.Context()))
		if n, _, _ := turns.all.Figures(); n != 0 {
			t.Errorf("%d turns are taken before a request", n)
		}
		for range 3 {
			if err := read(held); err != nil {
				t.Error(err)
			}
			if n, _, _ := turns.all.Figures(); n != 1 {
				t.Errorf("%d turns are taken", n)
			}
		}
		free, endFree, ok := client.FreeTurn(oci.Caller{Client: "b"}.Into(t.Context()), hello(reg))
		if !ok || read(free) != nil {
			t.Error("the other turn was not to be had")
		}
		if _, _, ok := client.FreeTurn(t.Context(), hello(reg)); ok {
			t.Error("a turn came out of nowhere")
		}
		var came atomic.Int64
		var all sync.WaitGroup
		download(t, client, "c", 1, &all, &came)
		endFree()
		all.Wait()
		end()
		end()
		for _, one := range turns.chain(true) {
			if running, waiting, _ := one.Figures(); running != 0 || waiting != 0 || came.Load() != 1 {
				t.Errorf("%d turns are not given back, %d wait; %d came", running, waiting, came.Load())
			}
		}
	})
}
