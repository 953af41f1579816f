package transfer_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

func TestAnErrorAnswerComesWithin40s(t *testing.T) {
	t.Parallel()
	d, _ := fakeBlob(1000)
	late := func(ctx context.Context) error { // fails after 30 s, so a second question would take too long
		select {
		case <-time.After(30 * time.Second):
			return nil
		case <-ctx.Done():
			return hang(ctx)
		}
	}
	f := &fake{
		open: func(ctx context.Context, _ oci.Ref, _ int64) (*oci.Stream, error) { return nil, hang(ctx) },
		stat: func(ctx context.Context) (oci.Descriptor, error) {
			return oci.Descriptor{Size: -1}, late(ctx)
		},
		manifest: func(ctx context.Context) (oci.Manifest, error) { return oci.Manifest{}, hang(ctx) },
	}
	tag := oci.Ref{Registry: "reg.example.com", Repository: repo, Tag: "latest"}
	for name, ask := range map[string]func(context.Context, *rig) error{
		"GET of a blob": func(ctx context.Context, r *rig) error { _, err := r.Blob(ctx, fakeRef(d)); return err },
		"GET of a range": func(ctx context.Context, r *rig) error {
			_, err := r.Part(ctx, fakeRef(d), func(int64) ([]oci.Span, int64) { return []oci.Span{{Offset: 5, Length: 5}}, 0 })
			return err
		},
		"HEAD of a blob": func(ctx context.Context, r *rig) error { _, err := r.StatBlob(ctx, fakeRef(d)); return err },
		"GET of a tag":   func(ctx context.Context, r *rig) error { _, err := r.Manifest(ctx, tag, nil, false); return err },
		"HEAD of a tag":  func(ctx context.Context, r *rig) error { _, err := r.Manifest(ctx, tag, nil, true); return err },
		"GET of a manifest": func(ctx context.Context, r *rig) error {
			_, err := r.Manifest(ctx, fakeRef(d), nil, false)
			return err
		},
		"HEAD of a manifest": func(ctx context.Context, r *rig) error {
			_, err := r.Manifest(ctx, fakeRef(d), nil, true)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, func(t *testing.T, dir string) {
				r := fakeRig(t, dir, f, grants.Site{}, cache.Options{})
				defer r.end()
				var err error
				if d := took(func() { err = ask(t.Context(), r) }); d > 40*time.Second {
					t.Errorf("it took %v", d)
				}
				wantKind(t, err, oci.Timeout)
			})
		})
	}
}

// A download that makes no progress must end, not loop.
func TestADownloadWithoutProgressEnds(t *testing.T) {
	t.Parallel()
	d, content := fakeBlob(1 * mib)
	for name, again := range map[string]func(offset int64) (*oci.Stream, error){
		"cut at once":   func(o int64) (*oci.Stream, error) { return stream(o, endsWith(nil, io.ErrUnexpectedEOF)), nil },
		"gone":          func(int64) (*oci.Stream, error) { return nil, failure(oci.NotFound) },
		"in trouble":    func(int64) (*oci.Stream, error) { return nil, failure(oci.Unavailable) },
		"wrong range":   func(o int64) (*oci.Stream, error) { return stream(o-1, endsWith(content, io.EOF)), nil },
		"beginning new": func(int64) (*oci.Stream, error) { return stream(0, endsWith(content[:100], io.EOF)), nil },
		"no such range": func(int64) (*oci.Stream, error) { return nil, failure(oci.Invalid) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, func(t *testing.T, dir string) {
				f := &fake{open: func(_ context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
					if o == 0 {
						return stream(0, endsWith(content[:mib/2], io.ErrUnexpectedEOF)), nil
					}
					return again(o)
				}}
				r := fakeRig(t, dir, f, grants.Site{}, cache.Options{})
				defer r.end()
				k, _, err := r.pull(fakeRef(d), content, 0, -1)
				if err == nil || errors.Is(err, errWrong) || k != 0 && k != mib/2 { // 0: the download failed before the answer began
					t.Errorf("%d bytes, error %v", k, err)
				}
				if f.opens > 7 {
					t.Errorf("upstream was asked %d times", f.opens)
				}
			})
		})
	}
}

// stream returns a stream of a blob of 1 MiB.
func stream(offset int64, b body) *oci.Stream {
	return &oci.Stream{Body: b, Offset: offset, Size: mib, Host: "cdn.example.com"}
}

func TestASourceThatBeginsElsewhereIsNotBelieved(t *testing.T) {
	t.Parallel()
	d, content := fakeBlob(mib)
	testkit.Bubble(t, func(t *testing.T, dir string) {
		f := &fake{open: func(context.Context, oci.Ref, int64) (*oci.Stream, error) {
			return stream(5, endsWith(content[5:], io.EOF)), nil
		}}
		r := fakeRig(t, dir, f, grants.Site{}, cache.Options{})
		defer r.end()
		_, err := r.Blob(t.Context(), fakeRef(d))
		wantKind(t, err, oci.Unavailable)
	})
}

// A slow download counts as progress. One that stands still does not.
func TestASlowUpstreamIsWaitedForAndAStalledOneIsNot(t *testing.T) {
	t.Parallel()
	d, content := fakeBlob(mib)
	for name, test := range map[string]struct {
		pause time.Duration
		opens int
	}{"19 s between reads": {19 * time.Second, 2}, "21 s between reads": {21 * time.Second, 6}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, func(t *testing.T, dir string) {
				f := &fake{}
				f.open = func(ctx context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
					if o == 0 {
						return stream(0, endsWith(content[:1], io.ErrUnexpectedEOF)), nil
					}
					return stream(o, dripping(ctx, content[o:], 100*kib, test.pause)), nil
				}
				r := fakeRig(t, dir, f, grants.Site{}, cache.Options{})
				defer r.end()
				_, _, err := r.pull(fakeRef(d), content, 0, -1)
				if stalled := test.pause > 20*time.Second; (err != nil) != stalled {
					t.Errorf("error %v", err)
				}
				if f.opens != test.opens {
					t.Errorf("upstream was asked %d times, want %d", f.opens, test.opens)
				}
			})
		})
	}
}

// A download that is not kept waits for its only reader. That does not count as a stall.
func TestWaitingForAReaderIsNoStall(t *testing.T) {
	t.Parallel()
	d, content := fakeBlob(8 * mib)
	testkit.Bubble(t, func(t *testing.T, dir string) {
		f := &fake{open: func(ctx context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
			b := endsWith(content[o:], io.EOF)
			return &oci.Stream{Offset: o, Size: int64(len(content)), Host: "cdn.example.com", Body: body(func(p []byte) (int, error) {
				if ctx.Err() != nil {
					return 0, context.Cause(ctx)
				}
				return b(p)
			})}, nil
		}}
		r := fakeRig(t, dir, f, grants.Site{}, cache.Options{Bound: mib})
		defer r.end()
		a, err := r.Blob(t.Context(), fakeRef(d))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		w := &sleepy{checker: checker{content}, every: 30 * time.Second, left: 10}
		if k, err := a.Send(t.Context(), w, 0, -1); err != nil || len(w.checker.left) > 0 {
			t.Errorf("%d bytes, error %v", k, err)
		}
		if f.opens != 1 {
			t.Errorf("upstream was asked %d times", f.opens)
		}
	})
}

// A sleepy client pauses before each of its first writes.
type sleepy struct {
	checker checker
	every   time.Duration
	left    int
}

func (s *sleepy) Write(p []byte) (int, error) {
	if s.left--; s.left >= 0 {
		<-time.After(s.every)
	}
	return s.checker.Write(p)
}

// A download that is not kept and has no reader is given up. A later request gets the
// blob all the same.
func TestAnAbandonedDownloadDoesNotFailWhoComesLater(t *testing.T) {
	t.Parallel()
	d, content := fakeBlob(8 * mib)
	testkit.Bubble(t, func(t *testing.T, dir string) {
		f := &fake{open: func(_ context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
			return &oci.Stream{Offset: o, Size: int64(len(content)), Body: endsWith(content[o:], io.EOF)}, nil
		}}
		r := fakeRig(t, dir, f, grants.Site{}, cache.Options{Bound: mib})
		defer r.end()
		for i := range 12 {
			a, err := r.Blob(t.Context(), fakeRef(d))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = a.Send(t.Context(), &quitter{left: 1000}, 0, -1)
			_ = a.Close()
			<-time.After(time.Duration(i) * 500 * time.Millisecond)
			if _, _, err := r.pull(fakeRef(d), content, 0, -1); err != nil {
				t.Errorf("after %v: %v", time.Duration(i)*500*time.Millisecond, err)
			}
		}
		synctest.Wait()
	})
}

func TestStaleIsLimitedInTime(t *testing.T) {
	t.Parallel()
	content := []byte(`{"schemaVersion":2}`)
	tag := oci.Ref{Registry: "reg.example.com", Repository: repo, Tag: "latest"}
	testkit.Bubble(t, func(t *testing.T, dir string) {
		var up atomic.Bool
		up.Store(true)
		f := &fake{
			stat: func(ctx context.Context) (oci.Descriptor, error) {
				if !up.Load() {
					return oci.Descriptor{}, hang(ctx)
				}
				return oci.Descriptor{Size: -1}, nil
			},
			manifest: func(context.Context) (oci.Manifest, error) {
				return oci.Manifest{Digest: digest.FromBytes(content), MediaType: "application/json", Bytes: content}, nil
			},
		}
		r := fakeRig(t, dir, f, grants.Site{TagTTL: time.Minute, StaleIfError: time.Hour}, cache.Options{})
		defer r.end()
		ask := func() (*oci.Found, error) { return r.Manifest(t.Context(), tag, nil, false) }
		if _, err := ask(); err != nil {
			t.Fatal(err)
		}
		up.Store(false)
		<-time.After(59 * time.Second)
		if m, err := ask(); err != nil || m.Stale != nil || m.Origin != oci.Hit {
			t.Errorf("within tag_ttl: %+v, error %v", m, err)
		}
		<-time.After(30 * time.Minute)
		if m, err := ask(); err != nil || m.Stale == nil || m.Stale.Kind != oci.Timeout {
			t.Errorf("within stale_if_error: %+v, error %v", m, err)
		}
		<-time.After(30 * time.Minute)
		_, err := ask()
		wantKind(t, err, oci.Timeout)
		synctest.Wait() // the question that failed has ended too
		up.Store(true)
		if m, err := ask(); err != nil || m.Stale != nil {
			t.Errorf("once upstream is back: %+v, error %v", m, err)
		}
	})
}

// A clock that was set back must not make a tag look fresh for ever.
func TestATagCheckedInTheFutureIsCheckedAgain(t *testing.T) {
	t.Parallel()
	content := []byte(`{"schemaVersion":2,"manifests":[]}`)
	d := digest.FromBytes(content)
	dir := t.TempDir()
	asked := 0
	f := &fake{
		stat: func(context.Context) (oci.Descriptor, error) {
			asked++
			return oci.Descriptor{Digest: d, Size: int64(len(content))}, nil
		},
		manifest: func(context.Context) (oci.Manifest, error) {
			return oci.Manifest{Digest: d, MediaType: "application/json", Bytes: content}, nil
		},
	}
	tag := oci.Ref{Registry: "reg.example.com", Repository: repo, Tag: "latest"}
	visit := func(t *testing.T) {
		r := fakeRig(t, dir, f, grants.Site{}, cache.Options{})
		defer r.end()
		if _, err := r.Manifest(t.Context(), tag, nil, false); err != nil {
			t.Error(err)
		}
	}
	visit(t)                // in the present
	synctest.Test(t, visit) // bubbles begin in the year 2000
	if asked != 2 {
		t.Errorf("upstream was asked %d times, want 2", asked)
	}
}
