package transfer_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer"
	"oci-proxy/transfer/upstreamtest"
)

func TestErrorsTellWhatFailedWhere(t *testing.T) {
	t.Parallel()
	err := error(&transfer.Error{
		Kind: transfer.Limited, Registry: "a.example.com", Host: "b.example.com", Status: 429, Reason: "too many", Err: io.ErrUnexpectedEOF,
	})
	if got := err.Error(); got != "a.example.com: too many (at b.example.com): upstream answered 429: unexpected EOF" {
		t.Errorf("it says %q", got)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) || transfer.KindOf(err).String() != "limited" || transfer.KindOf(io.EOF) != transfer.Unavailable {
		t.Errorf("cause or kind of %v are lost", err)
	}
}

func TestBytesSentAreCountedByTheirOrigin(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.Sent("a.example.com", transfer.Miss, 10)
	r.Sent("a.example.com", transfer.Hit, 1)
	c := r.Counters()["a.example.com"]
	if c.MissBytes.Load() != 10 || c.HitBytes.Load() != 1 || transfer.Hit.String() != "hit" || transfer.Miss.String() != "miss" {
		t.Errorf("%d bytes missed, %d hit", c.MissBytes.Load(), c.HitBytes.Load())
	}
}

// later makes an upstream's failure final at once: nobody waits that long.
var later = http.Header{"Retry-After": {"60"}}

func TestFailuresBeforeTheFirstByteAreErrorsOfTheirKind(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fault upstreamtest.Fault
		kind  transfer.Kind
	}{
		"400": {upstreamtest.Fault{Status: 400}, transfer.Invalid},
		"401": {upstreamtest.Fault{Status: 401}, transfer.Denied},
		"403": {upstreamtest.Fault{Status: 403}, transfer.Denied},
		"404": {upstreamtest.Fault{Status: 404}, transfer.NotFound},
		"429": {upstreamtest.Fault{Status: 429, Header: later}, transfer.Limited},
		"500": {upstreamtest.Fault{Status: 500, Header: later}, transfer.Unavailable},
		"503": {upstreamtest.Fault{Status: 503, Header: later}, transfer.Unavailable},
		"504": {upstreamtest.Fault{Status: 504, Header: later}, transfer.Timeout},
		"206": {upstreamtest.Fault{WrongRange: true}, transfer.Unavailable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			d, content := r.put(1, mib)
			test.fault.Match = get
			r.registry.Fault(test.fault)
			each(5, func(int) {
				_, err := r.Blob(t.Context(), r.ref(d))
				e := wantKind(t, err, test.kind)
				if e.Registry != r.registry.Host() {
					t.Errorf("the error is of %q", e.Registry)
				}
				if test.fault.Header != nil && e.RetryAfter.Seconds() != 60 {
					t.Errorf("Retry-After is %v", e.RetryAfter)
				}
			})
			r.registry.ClearFaults()
			r.mustPull(r.ref(d), content, transfer.Miss)
		})
	}
}

func TestARefusedConnectionIsAnError(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	d, content := r.put(1, 100)
	r.registry.Down()
	_, err := r.Blob(t.Context(), r.ref(d))
	wantKind(t, err, transfer.Unavailable)
	_, err = r.StatBlob(t.Context(), r.ref(d))
	wantKind(t, err, transfer.Unavailable)
	r.registry.Up()
	r.mustPull(r.ref(d), content, transfer.Miss)
}

func TestAnOfflineRegistryIsNeverAsked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(t, setup{dir: dir})
	d, content := r.put(1, mib)
	r.mustPull(r.ref(d), content, transfer.Miss)
	r.events.await(filled, 1)
	r.end()

	off := newRig(t, setup{dir: dir, registry: r.registry, policy: transfer.Policy{Offline: true}})
	asked := r.registry.Count("", "")
	off.mustPull(off.ref(d), content, transfer.Hit)
	missing := off.ref(digest.FromString("missing"))
	_, err := off.Blob(t.Context(), missing)
	wantKind(t, err, transfer.Offline)
	_, err = off.StatBlob(t.Context(), missing)
	wantKind(t, err, transfer.Offline)
	_, err = off.Manifest(t.Context(), missing, nil, false)
	wantKind(t, err, transfer.Offline)
	_, err = off.Manifest(t.Context(), off.tag("latest"), nil, true)
	wantKind(t, err, transfer.Offline)
	_, err = off.Tags(t.Context(), off.tag(""), nil)
	wantKind(t, err, transfer.Offline)
	_, err = off.Referrers(t.Context(), missing, nil)
	wantKind(t, err, transfer.Offline)
	if n := r.registry.Count("", ""); n != asked {
		t.Errorf("%d requests reached a registry that is offline", n-asked)
	}
}

// Who joins a download that another repository's request began is not told
// that the other repository lacks the blob.
func TestARepositoryThatLacksTheBlobDoesNotFailAnother(t *testing.T) {
	t.Parallel()
	for _, kind := range []int{http.StatusNotFound, http.StatusForbidden} {
		r := newRig(t, setup{})
		d, content := r.put(1, mib)
		lacking := []string{"a/lacks", "b/lacks", "c/lacks", "d/lacks", "e/lacks", "f/lacks"}
		for _, name := range lacking {
			r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/" + name + "/"}, Status: kind})
		}
		release := r.registry.Hold(get)
		var wg sync.WaitGroup
		for _, name := range lacking {
			wg.Go(func() {
				ref := r.ref(d)
				ref.Repository = name
				// It may join the download of one that has it; else it is told its own.
				if a, err := r.Blob(context.Background(), ref); err == nil {
					_ = a.Close()
				} else if e := wantKind(t, err, map[int]transfer.Kind{404: transfer.NotFound, 403: transfer.Denied}[kind]); e.Status != kind {
					t.Errorf("status %d", e.Status)
				}
			})
		}
		r.registry.WaitFor(get, 1)
		for range 3 {
			wg.Go(func() { // one that comes late finds it in the shard
				if k, _, err := r.pull(r.ref(d), content, 0, -1); err != nil {
					t.Errorf("pulled %d bytes: %v", k, err)
				}
			})
		}
		release()
		wg.Wait()
	}
}

// A registry that is down must not hold up clients of another that holds the
// same blob.
func TestARegistryInTroubleDoesNotFailAnother(t *testing.T) {
	t.Parallel()
	dead := upstreamtest.New(t)
	r := newRig(t, setup{registries: []*upstreamtest.Registry{dead}})
	d, content := r.put(1, mib)
	dead.Hold(upstreamtest.Match{})
	other := r.ref(d)
	other.Registry = dead.Host()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _, _ = r.Blob(ctx, other) }()
	dead.WaitFor(get, 1)
	r.mustPull(r.ref(d), content, transfer.Miss)
}

func TestARedirectThatIsNotFollowedGoesToEveryClient(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{options: []upstreamtest.Option{upstreamtest.Redirect()}, passOn: true})
	d, _ := r.put(1, mib)
	release := r.registry.Hold(get)
	done := make(chan struct{})
	go func() {
		defer close(done)
		each(10, func(int) {
			a, err := r.Blob(t.Context(), r.ref(d))
			if err != nil || !strings.HasPrefix(a.Redirect, "http://"+r.registry.CDNHost()+"/") {
				t.Errorf("redirected to %+v, error %v", a, err)
				return
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		})
	}()
	r.registry.WaitFor(get, 1)
	release()
	<-done
	if _, ok := r.store.Stat(d); ok || r.registry.BytesSent() != 0 {
		t.Error("the blob was got all the same")
	}
	for _, what := range []string{"", "HEAD is not offered"} {
		if what != "" {
			r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: "HEAD"}, Status: 405})
		}
		if b, err := r.StatBlob(t.Context(), r.ref(d)); b.Size != -1 || b.Redirect == "" || err != nil {
			t.Errorf("HEAD: size %d, redirect %q, error %v; %s", b.Size, b.Redirect, err, what)
		}
	}
}
