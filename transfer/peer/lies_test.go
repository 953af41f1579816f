package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// calls lists everything that a peer can be asked.
var calls = map[string]func(context.Context, *Client, mesh.Peer) error{
	"open": func(ctx context.Context, _ *Client, b mesh.Peer) error {
		_, _, err := pull(ctx, b, somewhere, 0, false)
		return err
	},
	"peek": func(ctx context.Context, _ *Client, b mesh.Peer) error {
		_, err := b.Peek(ctx, somewhere)
		return err
	},
	"progress": func(ctx context.Context, _ *Client, b mesh.Peer) error {
		_, err := b.Progress(ctx, somewhere)
		return err
	},
	"stat": func(ctx context.Context, _ *Client, b mesh.Peer) error {
		_, _, err := b.Stat(ctx, somewhere)
		return err
	},
	"tag": func(ctx context.Context, _ *Client, b mesh.Peer) error {
		_, err := b.Tag(ctx, oci.Ref{Registry: somewhere.Registry, Repository: repo, Tag: "v1"}, nil)
		return err
	},
	"manifest": func(ctx context.Context, _ *Client, b mesh.Peer) error {
		_, err := b.Manifest(ctx, somewhere, mesh.Terms{})
		return err
	},
	"tags": func(ctx context.Context, _ *Client, b mesh.Peer) error {
		_, _, err := b.List(ctx, oci.Question{Ref: somewhere.Repo()}, false, new(bytes.Buffer))
		return err
	},
	"referrers": func(ctx context.Context, _ *Client, b mesh.Peer) error {
		_, _, err := b.List(ctx, oci.Question{Ref: somewhere}, false, new(bytes.Buffer))
		return err
	},
	"kept": func(ctx context.Context, _ *Client, b mesh.Peer) error {
		_, _, err := b.List(ctx, oci.Question{Ref: somewhere}, true, new(bytes.Buffer))
		return err
	},
	"relayed blob": func(ctx context.Context, c *Client, _ mesh.Peer) error {
		s, err := c.Relayer("b").Relay().Open(ctx, somewhere, 0)
		if err != nil {
			return err
		}
		_, err = io.ReadAll(s.Body)
		return errors.Join(err, s.Body.Close())
	},
	"relayed range": func(ctx context.Context, c *Client, _ mesh.Peer) error {
		_, err := c.Relayer("b").Relay().Range(ctx, somewhere, oci.Span{Offset: 5, Length: 100})
		return err
	},
	"relayed head": func(ctx context.Context, c *Client, _ mesh.Peer) error {
		_, err := c.Relayer("b").Relay().Stat(ctx, somewhere, true, nil)
		return err
	},
	"relayed manifest": func(ctx context.Context, c *Client, _ mesh.Peer) error {
		_, err := c.Relayer("b").Relay().Manifest(ctx, somewhere, nil)
		return err
	},
	"relayed tags": func(ctx context.Context, c *Client, _ mesh.Peer) error {
		_, err := c.Relayer("b").Relay().Tags(ctx, somewhere.Repo(), "", new(bytes.Buffer))
		return err
	},
	"relayed referrers": func(ctx context.Context, c *Client, _ mesh.Peer) error {
		_, err := c.Relayer("b").Relay().Referrers(ctx, somewhere, "", new(bytes.Buffer))
		return err
	},
	"last word": func(ctx context.Context, _ *Client, b mesh.Peer) error {
		_, err := b.LastWord(ctx, oci.Question{Ref: somewhere})
		return err
	},
	"offer": func(ctx context.Context, _ *Client, b mesh.Peer) error {
		return b.Offer(ctx, oci.Ref{Registry: somewhere.Registry, Digest: somewhere.Digest}, "")
	},
	"refused": func(ctx context.Context, _ *Client, b mesh.Peer) error { return b.Refused(ctx, somewhere) },
	"lost": func(ctx context.Context, _ *Client, b mesh.Peer) error {
		return b.Lost(ctx, somewhere, oci.BlobResource)
	},
	"stats": func(ctx context.Context, c *Client, _ mesh.Peer) error {
		_, err := c.Stats(ctx, "b")
		return err
	},
}

// endless writes until the client hangs up.
func endless(w http.ResponseWriter) {
	for b := []byte(strings.Repeat(" ", 64*kib)); ; {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

func TestAnswersThatCannotBeRight(t *testing.T) {
	t.Parallel()
	all := []string{"open", "peek", "progress", "stat", "tag", "manifest", "tags", "referrers", "kept", "last word", "offer", "stats"}
	for name, lie := range map[string]struct {
		calls  []string
		answer func(http.ResponseWriter, *http.Request)
	}{
		"no mark": {all, func(w http.ResponseWriter, _ *http.Request) { w.Header().Del(headerMark) }},
		"another version": {all, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerMark, "2")
			w.WriteHeader(http.StatusOK)
		}},
		"a redirect": {all, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://"+r.Host+"/elsewhere")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}},
		"a status": {all, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }},
		"large headers": {all, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxHeader))
		}},
		"many answers before the answer": {all, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", kib))
			for range 100 {
				w.WriteHeader(http.StatusEarlyHints)
			}
		}},
		"failures that are none": {all, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerFailure, failedUpstream)
			w.Header().Set(headerError, `{"kind":"wonderful"}`)
		}},
		"unknown failures": {all, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerFailure, strings.Repeat("x", kib))
		}},
		"no end": {[]string{"progress", "tag", "manifest", "offer", "stats"}, func(w http.ResponseWriter, _ *http.Request) { endless(w) }},
		"garbage": {[]string{"progress", "tag", "stats", "peek"}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerPresence, "somehow")
			fmt.Fprint(w, `{"offset":"far"`, strings.Repeat("[", 10*kib))
		}},
		"wrong numbers": {[]string{"progress", "tag"}, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"offset":-1,"size":-7,"digest":%q}`, somewhere.Digest)
		}},
		"no digest": {[]string{"tag"}, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"size":1,"digest":"../x"}`) }},
		"too large": {[]string{"manifest", "tags", "referrers", "kept", "last word", "stats"}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(maxList+1))
		}},
		"odd ways": {[]string{"open", "stat", "tag", "manifest", "tags", "kept", "last word"}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerVia, "ü")
		}},
		"odd failures": {[]string{"stat", "tag", "manifest"}, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(headerStale, "{") }},
		"odd redirects": {[]string{"open"}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerRedirect, "file:///etc/passwd")
		}},
		"odd pages":       {[]string{"tags", "referrers", "kept"}, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(headerNext, "n=1&ns=evil") }},
		"odd links":       {[]string{"tags", "referrers", "kept"}, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(headerNext, "a=>") }},
		"odd media types": {[]string{"tags", "manifest"}, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "ü") }},
		"no range asked for": {[]string{"open"}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-4/5")
			w.WriteHeader(http.StatusPartialContent)
		}},
		"odd last words": {[]string{"last word"}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerPresence, "held")
			w.Header().Set(headerError, `{"kind":"wonderful"}`)
		}},
		"a body that is cut": {[]string{"open", "manifest", "tags", "kept", "stats"}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, "[1]")
		}},
		"nothing": {all, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	} {
		for _, call := range lie.calls {
			t.Run(name+" to "+call, func(t *testing.T) {
				t.Parallel()
				c, b := liar(t, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set(headerMark, version)
					lie.answer(w, r)
				})
				for range strikes {
					wantPeerError(t, calls[call](t.Context(), c, b), "")
				}
				if c.Healthy("b") && name != "unknown failures" {
					t.Error("it is not quarantined")
				}
			})
		}
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, b := liar(t, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // otherwise net/http does not notice that the client leaves
				<-r.Context().Done()
			})
			if name == "open" || name == "relayed blob" || name == "offer" { // only the caller sets a time limit for these
				for range strikes {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
					err := call(ctx, c, b)
					cancel()
					if wantPeerError(t, err, ""); !errors.Is(err, context.DeadlineExceeded) || !c.Healthy("b") {
						t.Errorf("%v, healthy %v", err, c.Healthy("b"))
					}
				}
				return
			}
			c.times.call, c.times.peek, c.times.progress = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
			for range strikes {
				if err := call(t.Context(), c, b); !errors.Is(err, errLate) {
					t.Errorf("%v", err)
				}
			}
			if c.Healthy("b") {
				t.Error("it is not quarantined")
			}
		})
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	ref := r.ref(r.registry.PutBlob(repo, []byte("hello")))
	for range bulkSlots {
		r.server.table["GET blobs/"].slots.take()
	}
	r.times.busy = 100 * time.Millisecond
	_, err := r.b.Open(t.Context(), ref, 0, mesh.Terms{})
	if e := wantPeerError(t, err, "is busy"); !e.Busy || !r.Healthy("b") || r.server.Counts().Busy == 0 {
		t.Errorf("%v, healthy %v, %+v", e, r.Healthy("b"), r.server.Counts())
	}
	if _, err := r.Stats(t.Context(), "b"); err != nil {
		t.Errorf("a call with slots of its own: %v", err)
	}
	for range controlSlots {
		r.server.table["HEAD blobs/"].slots.take()
	}
	if _, err := r.b.Peek(t.Context(), ref); !wantPeerError(t, err, "").Busy {
		t.Error(err)
	}
	if _, err := r.b.Progress(t.Context(), ref); err != nil {
		t.Errorf("a sign of life, which needs no slot: %v", err)
	}
	for range bulkSlots {
		r.server.table["GET blobs/"].slots.free()
	}
	if b, _, err := pull(t.Context(), r.b, ref, 0, false); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestBusyPeerIsAskedAgain(t *testing.T) {
	t.Parallel()
	left := make(chan struct{}, 3)
	for range cap(left) {
		left <- struct{}{}
	}
	c, _ := liar(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerMark, version)
		select {
		case <-left:
			w.Header().Set("Retry-After", "0.001")
			refuse(w, http.StatusServiceUnavailable, failedBusy)
		default:
			fmt.Fprint(w, "[]")
		}
	})
	if b, err := c.Stats(t.Context(), "b"); err != nil || string(b) != "[]" {
		t.Errorf("%s, %v", b, err)
	}
	for range cap(left) {
		left <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Stats(ctx, "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller gave up: %v", err)
	}
}

func TestBodyThatBreaksOffHasNoEnd(t *testing.T) {
	t.Parallel()
	const size = mib
	for name, told := range map[string]bool{"with a length": true, "chunked": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			d := r.registry.PutBlob(repo, random(1, size))
			rest := make(chan struct{})
			r.registry.Fault(upstreamtest.Fault{
				Match: upstreamtest.Match{PathPart: "/blobs/"}, Corrupt: true, NoLength: !told,
				Stall: true, StallAfter: size / 2, StallUntil: rest, Times: 1,
			})
			s, err := r.b.Open(t.Context(), r.ref(d), 0, mesh.Terms{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadFull(s.Body, make([]byte, 1)) // a wrong byte; the node could start over if none had left
			close(rest)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(s.Body)
			wantPeerError(t, err, "broke off")
			if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) > size-64*kib {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			_ = s.Body.Close()
		})
	}
}

func TestACallerThatGivesUpBlamesNobody(t *testing.T) {
	t.Parallel()
	c, b := liar(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerMark, version)
		w.Header().Set("Content-Length", "5")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	for range strikes {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := b.Open(ctx, somewhere, 0, mesh.Terms{})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := io.ReadAll(s.Body); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		_ = s.Body.Close()
	}
	if !c.Healthy("b") {
		t.Error("the peer is quarantined")
	}
}
