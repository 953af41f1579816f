package transfer_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// closing closes r's fetcher, which may take up to patience.
func closing(r *rig, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r.Close(ctx)
}

func TestCloseLetsADownloadLand(t *testing.T) {
	t.Parallel()
	d, content := fakeBlob(mib)
	testkit.Bubble(t, func(t *testing.T, dir string) {
		f := &fake{open: func(ctx context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
			return stream(o, dripping(ctx, content, 100*kib, time.Second)), nil
		}}
		r := fakeRig(t, dir, f, grants.Site{}, cache.Options{})
		defer r.end()
		a, err := r.Blob(t.Context(), fakeRef(d))
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Close()
		if d := took(func() { closing(r, time.Minute) }); d > 15*time.Second {
			t.Errorf("it took %v", d)
		}
		if _, ok := r.store.Stat(d); !ok {
			t.Error("the blob did not land")
		}
	})
}

func TestCloseEndsInTime(t *testing.T) {
	t.Parallel()
	d, content := fakeBlob(8 * mib)
	tag := oci.Ref{Registry: "reg.example.com", Repository: repo, Tag: "latest"}
	hanging := &fake{
		open: func(ctx context.Context, _ oci.Ref, _ int64) (*oci.Stream, error) { return nil, hang(ctx) },
		stat: func(ctx context.Context) (oci.Descriptor, error) { return oci.Descriptor{}, hang(ctx) },
	}
	dripping := &fake{open: func(ctx context.Context, _ oci.Ref, _ int64) (*oci.Stream, error) {
		return &oci.Stream{Size: 8 * mib, Body: dripping(ctx, content, 1, time.Second)}, nil
	}}
	failing := &fake{open: func(_ context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
		if o > 0 {
			return nil, failure(oci.Unavailable)
		}
		return &oci.Stream{Size: 8 * mib, Body: endsWith(content[:100], context.DeadlineExceeded)}, nil
	}}
	quick := &fake{open: func(_ context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
		return &oci.Stream{Offset: o, Size: 8 * mib, Body: endsWith(content[o:], io.EOF)}, nil
	}}
	blob := func(r *rig) error {
		_, _, err := r.pull(fakeRef(d), content, 0, -1)
		return err
	}
	for name, test := range map[string]struct {
		f    *fake
		opts cache.Options
		ask  func(*rig) error
	}{
		"upstream does not answer":       {hanging, cache.Options{}, blob},
		"the blob drips":                 {dripping, cache.Options{}, blob},
		"between two tries":              {failing, cache.Options{}, blob},
		"waiting for a reader":           {quick, cache.Options{Bound: mib}, func(r *rig) error { return stuck(r, d) }},
		"a tag is being checked":         {hanging, cache.Options{}, func(r *rig) error { _, err := r.Manifest(context.Background(), tag, nil, false); return err }},
		"nobody waits for it any longer": {hanging, cache.Options{}, func(r *rig) error { _, err := r.Manifest(timely(), tag, nil, false); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, func(t *testing.T, dir string) {
				r := fakeRig(t, dir, test.f, grants.Site{}, test.opts)
				defer r.end()
				ended := make(chan error, 1)
				go func() { ended <- test.ask(r) }()
				<-time.After(600 * time.Millisecond)
				if d := took(func() { closing(r, 10*time.Second) }); d > 11*time.Second {
					t.Errorf("it took %v", d)
				}
				if err := <-ended; err == nil {
					t.Error("the client that was cut got no error")
				}
			})
		})
	}
}

// timely returns a context that ends soon.
func timely() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// stuck is a client that stops reading, and gives up after a minute.
func stuck(r *rig, d digest.Digest) error {
	a, err := r.Blob(context.Background(), fakeRef(d))
	if err != nil {
		return err
	}
	defer a.Close()
	_, err = a.Send(context.Background(), &sleepy{every: time.Minute, left: 1}, 0, -1)
	return err
}

func TestAfterCloseNothingBegins(t *testing.T) {
	t.Parallel()
	d, content := fakeBlob(100)
	testkit.Bubble(t, func(t *testing.T, dir string) {
		f := &fake{open: func(_ context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
			return &oci.Stream{Size: 100, Body: endsWith(content, io.EOF)}, nil
		}}
		r := fakeRig(t, dir, f, grants.Site{StaleIfError: time.Hour}, cache.Options{})
		defer r.end()
		closing(r, time.Second)
		_, err := r.Blob(t.Context(), fakeRef(d))
		wantKind(t, err, oci.Unavailable)
		_, err = r.Manifest(t.Context(), fakeRef(d), nil, false)
		wantKind(t, err, oci.Unavailable)
		_, err = r.Manifest(t.Context(), oci.Ref{Registry: "reg.example.com", Repository: repo, Tag: "latest"}, nil, false)
		wantKind(t, err, oci.Unavailable)
	})
}

// A node that shuts down tells waiting clients so. The error is not that of a client that
// left.
func TestWhoWaitsAtTheEndIsTold(t *testing.T) {
	t.Parallel()
	d, _ := fakeBlob(100)
	testkit.Bubble(t, func(t *testing.T, dir string) {
		f := &fake{open: func(ctx context.Context, _ oci.Ref, _ int64) (*oci.Stream, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		r := fakeRig(t, dir, f, grants.Site{}, cache.Options{})
		defer r.end()
		ended := make(chan error, 1)
		go func() {
			_, err := r.Blob(context.Background(), fakeRef(d))
			ended <- err
		}()
		<-time.After(time.Second)
		closing(r, time.Second)
		wantKind(t, <-ended, oci.Unavailable)
	})
}
