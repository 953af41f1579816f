package archive

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
)

var (
	refused = &oci.Error{Kind: oci.Unavailable, Registry: own, Host: own, Reason: "connection refused"}
	absent  = &oci.Error{Kind: oci.NotFound, Registry: own, Host: own, By: oci.Registry, Status: 404, Reason: "no such blob"}
)

// What the bucket has is not asked of the registry, and is told as a mirror's, to be verified.
func TestContentComesFromTheBucket(t *testing.T) {
	t.Parallel()
	inBubble(t, true, func(r *rig) {
		r.wantPull(0, "bucket")
		s, err := r.Open(r.ctx(), r.ref(), mib)
		if err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(s.Body)
		if _ = s.Body.Close(); err != nil || !bytes.Equal(rest, r.content[mib:]) || s.Offset != mib || s.Size != 2*mib || s.By != oci.Mirror || s.Wrong == nil || s.Host != "s3.internal:9000" {
			t.Errorf("the rest: %d bytes, %v, %+v", len(rest), err, s)
		}
		m, err := r.Manifest(r.ctx(), r.ref(), nil)
		if err != nil || !bytes.Equal(m.Bytes, r.content) || m.MediaType != mediaType || m.By != oci.Mirror {
			t.Errorf("a manifest: %d bytes as %s, %v", len(m.Bytes), m.MediaType, err)
		}
		d, err := r.Stat(r.ctx(), r.ref(), false, nil)
		if err != nil || d.Manifest == nil || !bytes.Equal(d.Manifest.Bytes, r.content) || d.By != oci.Mirror || d.Size != 2*mib {
			t.Errorf("its head: %v, %v", d.Size, err)
		}
		if asked := r.registry.took(); len(asked) > 0 {
			t.Errorf("the registry was asked: %q", asked)
		}
		if f := r.Figures(); f.Found != 4 {
			t.Errorf("the figures are %+v", f)
		}
	})
}

// What nobody can verify, and what is private and not vouched for, is the registry's alone.
func TestTheBucketIsAskedOnlyWhatItMayAnswer(t *testing.T) {
	t.Parallel()
	inBubble(t, true, func(r *rig) {
		tagged := oci.Ref{Registry: own, Repository: "a/b", Tag: "v1"}
		_, rangeErr := r.Range(r.ctx(), r.ref(), oci.Span{Length: 10})
		d, blobErr := r.Stat(r.ctx(), r.ref(), true, nil)
		_, tagErr := r.Stat(r.ctx(), tagged, false, nil)
		_, wholeErr := r.Manifest(r.ctx(), tagged, nil)
		_, tagsErr := r.Tags(r.ctx(), tagged, "", nil)
		_, refErr := r.Referrers(r.ctx(), r.ref(), "", nil)
		for _, err := range []error{rangeErr, blobErr, tagErr, wholeErr, tagsErr, refErr} {
			if err != nil {
				t.Error(err)
			}
		}
		if d.Size != 2*mib {
			t.Errorf("the size is %d", d.Size)
		}
		alone := r.t.Context() // the registry did not vouch
		s, err := r.Open(alone, r.ref(), 0)
		if err != nil || s.Archived {
			t.Fatalf("from the archive: %v, %v", s, err)
		}
		_ = s.Body.Close()
		if m, err := r.Manifest(alone, r.ref(), nil); err != nil || m.By != oci.Registry {
			t.Errorf("by %v, %v", m.By, err)
		}
		if _, err := r.OpenKept(alone, r.ref(), 0); oci.KindOf(err) != oci.Offline {
			t.Errorf("got %v", err)
		}
		if asked := r.bucket.took(); len(asked) > 0 {
			t.Errorf("the bucket was asked: %q", asked)
		}
	})
}

// What a private registry delivered lies under its own name, and nobody else's.
func TestPrivateContentIsKeptApart(t *testing.T) {
	t.Parallel()
	inBubble(t, false, func(r *rig) {
		r.private = true
		r.Offer(r.kept(r.content))
		synctest.Wait()
		hex := r.ref().Digest.Encoded()
		if _, _, ok := r.bucket.has("tier/one/private/" + own + "/blobs/sha256/" + hex[:2] + "/" + hex); !ok {
			t.Errorf("the bucket got %q", r.bucket.took())
		}
		r.wantPull(0, "bucket")
		r.private = false
		r.wantPull(0, "registry")
		r.private = true
		other := r.ref()
		other.Registry = "other.example.com:5000"
		s, err := r.Open(r.ctx(), other, 0)
		if err != nil || s.Archived {
			t.Fatalf("another registry's clients got it: %+v, %v", s, err)
		}
		_ = s.Body.Close()
		if key := r.key(other); !strings.Contains(key, "private/other.example.com~5000/blobs") {
			t.Errorf("the key is %s", key)
		}
	})
}

// A bucket that has nothing is well, and asked again.
func TestWhatTheBucketLacksComesFromTheRegistry(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]manner{
		"missing": {}, "no right to list": {status: 403, code: "AccessDenied"}, "nothing there": {status: 416, code: "InvalidRange"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, false, func(r *rig) {
				r.bucket.be(says)
				r.wantPull(0, "registry")
				r.wantPull(0, "registry")
				if asked := r.bucket.took(); len(asked) != 2 {
					t.Errorf("the bucket was asked %q", asked)
				}
				if err := r.Health(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A bucket that fails costs a quarter of a second at most, once; and it is in use again when
// it answers a probe.
func TestABucketInTroubleCostsNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		manner manner
		first  time.Duration // what it costs once
		says   string
	}{
		"slow":            {manner{delay: 3 * time.Second}, hedge, "faster"},
		"hanging":         {manner{hangs: true}, hedge, "faster"},
		"dead":            {manner{dead: true}, hedge, "connection refused"},
		"overloaded":      {manner{status: 503, code: "SlowDown"}, hedge, "503 SlowDown"},
		"not there":       {manner{status: 404, code: "NoSuchBucket"}, 0, "NoSuchBucket"},
		"a wrong secret":  {manner{status: 403, code: "SignatureDoesNotMatch"}, 0, "SignatureDoesNotMatch"},
		"another service": {manner{status: 400, code: "what"}, 0, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, true, func(r *rig) {
				r.bucket.be(test.manner)
				r.wantPull(test.first, "registry")
				for range 5 {
					r.wantPull(0, "registry")
				}
				if _, err := r.Manifest(r.ctx(), r.ref(), nil); err != nil {
					t.Error(err)
				}
				time.Sleep(firstRest + time.Second) // in the bubble
				r.wantPull(0, "registry")           // this one begins a probe, which fails
				synctest.Wait()
				r.wantPull(0, "registry")
				if err := r.Health(); err == nil || !strings.HasPrefix(err.Error(), "archive: ") || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), secret) {
					t.Errorf("health is %v", err)
				}
				r.bucket.be(manner{})
				r.wantPull(0, "registry")
				time.Sleep(2*firstRest + probeFor + time.Second) // in the bubble
				if r.Health() == nil {                           // who asks begins the probe, too
					t.Error("the bucket is well before its probe")
				}
				synctest.Wait()
				if err := r.Health(); err != nil {
					t.Error(err)
				}
				r.wantPull(0, "bucket")
			})
		})
	}
}

// A dead bucket is tried less and less, once at a time.
func TestProbesBecomeRare(t *testing.T) {
	t.Parallel()
	inBubble(t, true, func(r *rig) {
		r.bucket.be(manner{hangs: true})
		r.wantPull(hedge, "registry")
		r.bucket.took()
		for range 720 {
			time.Sleep(5 * time.Second) // in the bubble
			if m, err := r.Manifest(r.ctx(), r.ref(), nil); err != nil || m.By != oci.Registry {
				t.Fatalf("by %v, %v", m.By, err)
			}
		}
		if asked := r.bucket.took(); len(asked) < 10 || len(asked) > 20 {
			t.Errorf("%d probes in an hour", len(asked))
		}
	})
}

// While the registry fails, the bucket is waited for, and asked even if it is out of use.
func TestTheRegistryIsDown(t *testing.T) {
	t.Parallel()
	inBubble(t, true, func(r *rig) {
		r.registry.be(manner{fails: refused})
		r.wantPull(0, "bucket")
		r.bucket.be(manner{delay: 3 * time.Second})
		r.wantPull(3*time.Second, "bucket")
		r.bucket.be(manner{dead: true})
		_, err := r.pull()
		if e, ok := oci.AsError(err); !ok || e.Kind != oci.Unavailable || e.Host != own || !strings.Contains(err.Error(), "archive: ") || strings.Contains(err.Error(), secret) {
			t.Errorf("got %v", err)
		}
		r.bucket.be(manner{delay: time.Second})
		r.wantPull(time.Second, "bucket")
		if d, err := r.Stat(r.ctx(), r.ref(), true, nil); err != nil || d.Size != -1 || d.By != oci.Mirror {
			t.Errorf("a blob's head: %+v, %v", d, err)
		}
		r.bucket.be(manner{hangs: true})
		began := time.Now()
		if _, err := r.Manifest(r.ctx(), r.ref(), nil); oci.KindOf(err) != oci.Unavailable || time.Since(began) > patience {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		began = time.Now()
		if _, err := r.Open(r.ctx(), r.ref(), 0); oci.KindOf(err) != oci.Unavailable || time.Since(began) > lastFor {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// What the registry says no to is final, however late the bucket is.
func TestTheRegistrysWordIsFinal(t *testing.T) {
	t.Parallel()
	inBubble(t, true, func(r *rig) {
		r.bucket.be(manner{delay: time.Second})
		r.registry.be(manner{fails: absent})
		if _, err := r.Open(r.ctx(), r.ref(), 0); oci.KindOf(err) != oci.NotFound {
			t.Errorf("got %v", err)
		}
		if _, err := r.Manifest(r.ctx(), r.ref(), nil); oci.KindOf(err) != oci.NotFound {
			t.Errorf("got %v", err)
		}
	})
}

// The first answer wins, also if it is the bucket's after all.
func TestTheFirstAnswerWins(t *testing.T) {
	t.Parallel()
	inBubble(t, true, func(r *rig) {
		r.bucket.be(manner{delay: time.Second})
		r.registry.be(manner{delay: 5 * time.Second})
		r.wantPull(time.Second, "bucket")
		if err := r.Health(); err != nil {
			t.Error(err)
		}
		if asked := r.registry.took(); len(asked) != 1 {
			t.Errorf("the registry was asked %q", asked)
		}
	})
}

// Who leaves waits for nothing, and no bucket is blamed for it.
func TestWhoLeavesWaitsForNothing(t *testing.T) {
	t.Parallel()
	inBubble(t, true, func(r *rig) {
		r.bucket.be(manner{hangs: true})
		r.registry.be(manner{hangs: true})
		for _, after := range []time.Duration{100 * time.Millisecond, time.Second} {
			ctx, cancel := contextFor(r.ctx(), after)
			began := time.Now()
			if _, err := r.Open(ctx, r.ref(), 0); err == nil || time.Since(began) != after {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
			cancel()
		}
		if err := r.Health(); err != nil {
			t.Error(err)
		}
	})
}

// Wrong bytes cost a download, and are not asked for again until they are put right.
func TestWrongBytes(t *testing.T) {
	t.Parallel()
	inBubble(t, true, func(r *rig) {
		r.bucket.be(manner{lies: true})
		s, err := r.Open(r.ctx(), r.ref(), 0)
		if err != nil || !s.Archived {
			t.Fatalf("got %+v, %v", s, err)
		}
		_ = s.Body.Close()
		s.Wrong(true)
		r.wantPull(0, "registry")
		if r.log.Count("archive sent wrong bytes") != 1 {
			t.Errorf("the log says\n%s", r.log)
		}
		r.bucket.be(manner{})
		r.bucket.took()
		r.Offer(r.kept(r.content))
		synctest.Wait()
		if asked := r.bucket.took(); len(asked) != 1 || !strings.HasPrefix(asked[0], "PUT ") {
			t.Errorf("the bucket was asked %q", asked)
		}
		r.wantPull(0, "bucket")
	})
	inBubble(t, true, func(r *rig) { // of a manifest
		r.bucket.be(manner{lies: true})
		if m, err := r.Manifest(r.ctx(), r.ref(), nil); err != nil || m.By != oci.Registry {
			t.Errorf("by %v, %v", m.By, err)
		}
		r.registry.be(manner{fails: refused})
		if m, err := r.Manifest(r.ctx(), r.ref(), nil); oci.KindOf(err) != oci.Unavailable {
			t.Errorf("by %v, %v", m.By, err)
		}
	})
	inBubble(t, false, func(r *rig) { // of an object that was cut short
		r.bucket.hold(r.key(r.ref()), mediaType, r.content[:mib])
		s, err := r.Open(r.ctx(), r.ref(), mib)
		if err != nil || s.Archived {
			t.Fatalf("at its end the registry does not go on: %+v, %v", s, err)
		}
		_ = s.Body.Close()
	})
}

// A download that stands still, crawls or breaks off goes on at the registry.
func TestASlowDownloadIsLeft(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		manner manner
		within time.Duration
	}{
		"it stands still": {manner{still: mib}, stillFor},
		"it crawls":       {manner{rate: 20 << 10}, 4 * time.Second},
		"it is cut":       {manner{cut: mib}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, true, func(r *rig) {
				r.bucket.be(test.manner)
				r.wantPull(test.within, "bucket", "registry")
				r.wantPull(0, "registry")
				if asked := r.registry.took(); asked[0] == "GET 0" {
					t.Errorf("the registry was asked %q", asked)
				}
			})
		})
	}
}

// A download that is slow, and no slower than the registry, is kept.
func TestADownloadIsKeptThatTheRegistryDoesNotBringFaster(t *testing.T) {
	t.Parallel()
	inBubble(t, false, func(r *rig) {
		r.registry.be(manner{rate: 100 << 10})
		r.wantPull(time.Minute, "registry")
		r.bucket.hold(r.key(r.ref()), mediaType, r.content)
		r.bucket.be(manner{rate: 20 << 10})
		r.wantPull(2*time.Minute, "bucket")
	})
	inBubble(t, true, func(r *rig) { // the registry does not answer at all
		r.registry.be(manner{fails: refused})
		r.bucket.be(manner{cut: 128 << 10})
		from, err := r.pull()
		if !slices.Contains(from, "bucket") {
			t.Errorf("from %q, %v", from, err)
		}
		r.bucket.be(manner{rate: 20 << 10})
		r.wantPull(2*time.Minute, "bucket")
	})
}

// A bucket that is slow again and again is asked less and less: its header alone says nothing.
func TestASlowBucketIsLeftAloneForLonger(t *testing.T) {
	t.Parallel()
	inBubble(t, true, func(r *rig) {
		r.bucket.be(manner{rate: 20 << 10})
		slow := 0
		for range 30 {
			from, err := r.pull()
			if err != nil {
				t.Fatal(err)
			}
			if from[0] == "bucket" {
				slow++
			}
			time.Sleep(2 * time.Minute) // in the bubble
		}
		if slow < 5 || slow > 20 {
			t.Errorf("%d of 30 pulls were slow", slow)
		}
	})
}

// Of a registry that is never asked the bucket is asked alone.
func TestOfflineContent(t *testing.T) {
	t.Parallel()
	inBubble(t, true, func(r *rig) {
		s, err := r.OpenKept(r.ctx(), r.ref(), 16)
		if err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(s.Body)
		if _ = s.Body.Close(); err != nil || !bytes.Equal(rest, r.content[16:]) {
			t.Errorf("%d bytes, %v", len(rest), err)
		}
		if m, err := r.KeptManifest(r.ctx(), r.ref()); err != nil || !bytes.Equal(m.Bytes, r.content) {
			t.Errorf("%d bytes, %v", len(m.Bytes), err)
		}
		r.bucket.be(manner{hangs: true})
		began := time.Now()
		if _, err := r.KeptManifest(r.ctx(), r.ref()); oci.KindOf(err) != oci.Offline || time.Since(began) > patience {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if asked := r.registry.took(); len(asked) > 0 {
			t.Errorf("the registry was asked %q", asked)
		}
	})
}
