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

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

func TestErrorsTellWhatFailedWhere(t *testing.T) {
	t.Parallel()
	err := error(&oci.Error{
		Kind: oci.Limited, Registry: "a.example.com", Host: "b.example.com", Status: 429, Reason: "too many", Err: io.ErrUnexpectedEOF,
	})
	if got := err.Error(); got != "a.example.com: too many (at b.example.com): upstream answered 429: unexpected EOF" {
		t.Errorf("the error is %q", got)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) || oci.KindOf(err).String() != "limited" || oci.KindOf(io.EOF) != oci.Unavailable {
		t.Errorf("cause or kind of %v are lost", err)
	}
}

func TestBytesSentAreCountedByTheirOrigin(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	for from, n := range map[oci.Origin]int{oci.Miss: 10, oci.Hit: 1} {
		if _, err := r.Sending(io.Discard, "a.example.com", from).Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	c := r.Counters()["a.example.com"]
	if c.MissBytes.Load() != 10 || c.HitBytes.Load() != 1 || oci.Hit.String() != "hit" || oci.Miss.String() != "miss" {
		t.Errorf("%d bytes missed, %d hit", c.MissBytes.Load(), c.HitBytes.Load())
	}
}

// later makes an upstream's failure final at once, because no client waits that long.
var later = http.Header{"Retry-After": {"60"}}

func TestFailuresBeforeTheFirstByteAreErrorsOfTheirKind(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fault upstreamtest.Fault
		kind  oci.Kind
	}{
		"400": {upstreamtest.Fault{Status: 400}, oci.Invalid},
		"401": {upstreamtest.Fault{Status: 401}, oci.Denied},
		"403": {upstreamtest.Fault{Status: 403}, oci.Denied},
		"404": {upstreamtest.Fault{Status: 404}, oci.NotFound},
		"429": {upstreamtest.Fault{Status: 429, Header: later}, oci.Limited},
		"500": {upstreamtest.Fault{Status: 500, Header: later}, oci.Unavailable},
		"503": {upstreamtest.Fault{Status: 503, Header: later}, oci.Unavailable},
		"504": {upstreamtest.Fault{Status: 504, Header: later}, oci.Timeout},
		"206": {upstreamtest.Fault{WrongRange: true}, oci.Unavailable},
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
					t.Errorf("the error names the registry %q", e.Registry)
				}
				if wait := e.RetryAfter.Seconds(); test.fault.Header != nil && (wait > 60 || wait < 50) {
					t.Errorf("Retry-After is %v", e.RetryAfter)
				}
			})
			r.registry.ClearFaults()
			if test.kind == oci.Limited { // the registry is left alone for as long as it asked for
				asked := r.gets(d)
				_, err := r.Blob(t.Context(), r.ref(d))
				wantKind(t, err, oci.Limited)
				r.wantGets(d, asked)
				return
			}
			r.mustPull(r.ref(d), content, oci.Miss)
		})
	}
}

func TestARefusedConnectionIsAnError(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	d, content := r.put(1, 100)
	r.registry.Down()
	_, err := r.Blob(t.Context(), r.ref(d))
	wantKind(t, err, oci.Unavailable)
	_, err = r.StatBlob(t.Context(), r.ref(d))
	wantKind(t, err, oci.Unavailable)
	r.registry.Up()
	r.mustPull(r.ref(d), content, oci.Miss)
}

func TestAnOfflineRegistryIsNeverAsked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(t, setup{dir: dir})
	d, content := r.put(1, mib)
	r.mustPull(r.ref(d), content, oci.Miss)
	r.events.await(filled, 1)
	r.end()

	off := newRig(t, setup{dir: dir, registry: r.registry, policy: grants.Site{Offline: true}})
	asked := r.registry.Count("", "")
	off.mustPull(off.ref(d), content, oci.Hit)
	missing := off.ref(digest.FromString("missing"))
	_, err := off.Blob(t.Context(), missing)
	wantKind(t, err, oci.Offline)
	_, err = off.StatBlob(t.Context(), missing)
	wantKind(t, err, oci.Offline)
	_, err = off.Manifest(t.Context(), missing, nil, false)
	wantKind(t, err, oci.Offline)
	_, err = off.Manifest(t.Context(), off.tag("latest"), nil, true)
	wantKind(t, err, oci.Offline)
	_, err = off.Tags(t.Context(), off.tag(""), "")
	wantKind(t, err, oci.Offline)
	_, err = off.Referrers(t.Context(), missing, "")
	wantKind(t, err, oci.Offline)
	if n := r.registry.Count("", ""); n != asked {
		t.Errorf("%d requests reached a registry that is offline", n-asked)
	}
}

// lacking lists repositories that lack every blob.
var lacking = []string{"a/lacks", "b/lacks", "c/lacks", "d/lacks", "e/lacks", "f/lacks"}

// lack makes the registry wait and asks for a blob in each repository of lacking. All
// join the first one's download. After release the registry answers that the
// repositories lack the blob, and the errors arrive.
func (r *rig) lack(d digest.Digest, status int) (release func(), errs chan error) {
	errs = make(chan error, len(lacking))
	release = r.registry.Hold(get)
	for _, name := range lacking {
		r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/" + name + "/"}, Status: status})
		ref := r.ref(d)
		ref.Repository = name
		go func() {
			a, err := r.Blob(r.t.Context(), ref)
			if err == nil {
				_ = a.Close()
			}
			errs <- err
		}()
	}
	testkit.Await(r.t, "all who lack it are aboard", func() bool { return r.Aboard(r.ref(d)) == len(lacking) })
	return release, errs
}

// refusals lists how registries answer for a repository that lacks the blob.
var refusals = map[int]oci.Kind{http.StatusNotFound: oci.NotFound, http.StatusForbidden: oci.Denied}

func TestEachRepositoryThatLacksTheBlobSaysSoItself(t *testing.T) {
	t.Parallel()
	for status, kind := range refusals {
		r := newRig(t, setup{})
		d, _ := r.put(1, mib)
		release, errs := r.lack(d, status)
		release()
		for range lacking {
			if e := wantKind(t, <-errs, kind); e.Status != status {
				t.Errorf("status %d", e.Status)
			}
		}
		for _, name := range lacking {
			if n := r.registry.Count("GET", "/"+name+"/"); n != 1 {
				t.Errorf("%s was asked %d times", name, n)
			}
		}
	}
}

// A client that joins a download for another repository is not told that the other
// repository lacks the blob: it gets the blob from its own.
func TestARepositoryThatLacksTheBlobDoesNotFailAnother(t *testing.T) {
	t.Parallel()
	const size, having = 5 * mib, 3 // too large to be held back as a whole: followers are answered before its end
	for status := range refusals {
		r := newRig(t, setup{})
		d, content := r.put(1, size)
		release, errs := r.lack(d, status)
		rest := make(chan struct{})
		r.registry.Fault(upstreamtest.Fault{Stall: true, StallAfter: mib, StallUntil: rest})
		var told, sent sync.WaitGroup
		for range having {
			told.Add(1)
			sent.Go(func() {
				a, err := r.Blob(t.Context(), r.ref(d))
				told.Done()
				if err != nil {
					t.Errorf("a client of a repository that has it: %v", err)
					return
				}
				defer a.Close()
				k, err := a.Send(t.Context(), &checker{left: content}, 0, -1)
				if err != nil || k != size || a.Origin != oci.Miss {
					t.Errorf("a client of a repository that has it: %d bytes as a %v, error %v", k, a.Origin, err)
				}
			})
		}
		testkit.Await(t, "all are aboard", func() bool { return r.Aboard(r.ref(d)) == len(lacking)+having })
		release()
		told.Wait() // before the blob is in the shard, where they could find it
		close(rest)
		sent.Wait()
		for range lacking { // nil: the registry is public, so they may get the blob from another repository
			if err := <-errs; err != nil {
				wantKind(t, err, refusals[status])
			}
		}
		for _, name := range lacking {
			if n := r.registry.Count("GET", "/"+name+"/"); n > 1 {
				t.Errorf("%s was asked %d times", name, n)
			}
		}
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
	r.mustPull(r.ref(d), content, oci.Miss)
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
		t.Error("the node downloaded the blob all the same")
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
