package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
)

// contextFor is a context that ends after d.
func contextFor(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// other returns other content.
func other(i int) []byte { return fmt.Appendf(nil, "content %d", i) }

// Content is put once, after a look whether it is there.
func TestContentIsPutOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, false, func(r *rig) {
		r.Offer(r.kept(r.content))
		synctest.Wait()
		got, is, ok := r.bucket.has(r.key(r.ref()))
		if !ok || !bytes.Equal(got, r.content) || is != mediaType {
			t.Errorf("the bucket has %d bytes as %s", len(got), is)
		}
		hex := r.ref().Digest.Encoded()
		if want := "tier/one/blobs/sha256/" + hex[:2] + "/" + hex; r.key(r.ref()) != want {
			t.Errorf("the key is %s, want %s", r.key(r.ref()), want)
		}
		r.Offer(r.kept(r.content)) // it is known to be there
		synctest.Wait()
		if asked := r.bucket.took(); len(asked) != 2 || !strings.HasPrefix(asked[0], "HEAD ") || !strings.HasPrefix(asked[1], "PUT ") {
			t.Errorf("the bucket was asked %q", asked)
		}
		r.wantPull(0, "bucket")
		if f := r.Figures(); f != (Figures{Found: 1, Put: 1}) {
			t.Errorf("the figures are %+v", f)
		}
	})
	inBubble(t, true, func(r *rig) { // another node has put it
		r.Offer(r.kept(r.content))
		synctest.Wait()
		if asked := r.bucket.took(); len(asked) != 1 || r.Figures().Had != 1 {
			t.Errorf("the bucket was asked %q", asked)
		}
	})
	inBubble(t, true, func(r *rig) { // it comes from the bucket
		r.wantPull(0, "bucket")
		r.Offer(r.kept(r.content))
		synctest.Wait()
		if asked := r.bucket.took(); len(asked) != 1 {
			t.Errorf("the bucket was asked %q", asked)
		}
	})
}

// Content that left the node meanwhile is not put, and no bucket is blamed for it.
func TestContentThatIsGone(t *testing.T) {
	t.Parallel()
	inBubble(t, false, func(r *rig) {
		k := r.kept(r.content)
		k.Open = func() (oci.Body, error) { return nil, errors.New("evicted") }
		r.Offer(k)
		synctest.Wait()
		if f := r.Figures(); f != (Figures{Dropped: 1}) || r.Health() != nil {
			t.Errorf("the figures are %+v, health is %v", f, r.Health())
		}
	})
}

// While the bucket fails, content waits; what does not fit into the queue is dropped, and the
// log says so once a minute. No pull waits.
func TestABucketThatTakesNothing(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]manner{
		"full": {status: 507, code: "XMinioStorageFull"}, "dead": {dead: true}, "hanging": {hangs: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, false, func(r *rig) {
				r.bucket.be(says)
				for i := range queue + 100 {
					began := time.Now()
					r.Offer(r.kept(other(i)))
					if time.Since(began) > 0 {
						t.Fatal("an offer had to wait")
					}
				}
				time.Sleep(30 * time.Second) // in the bubble
				f := r.Figures()
				if f.Dropped < 98 || f.Dropped > 100 || f.Put != 0 {
					t.Errorf("the figures are %+v", f)
				}
				if n := r.log.Count("content not put"); n != 1 {
					t.Errorf("%d lines of the log", n)
				}
				if err := r.Health(); err == nil || !strings.HasPrefix(err.Error(), "archive: nothing is put") {
					t.Errorf("health is %v", err)
				}
				r.bucket.be(manner{})
				time.Sleep(20 * time.Minute) // in the bubble
				if f := r.Figures(); f.Put < queue-20 || f.Put+f.Failed+f.Dropped != queue+100 || r.Health() != nil {
					t.Errorf("the figures are %+v, health is %v", f, r.Health())
				}
			})
		})
	}
}

// An object that is refused again and again does not keep others from being put for ever.
func TestAnObjectIsTriedThreeTimes(t *testing.T) {
	t.Parallel()
	inBubble(t, false, func(r *rig) {
		r.bucket.be(manner{status: 403, code: "QuotaExceeded"})
		r.Offer(r.kept(other(1)))
		time.Sleep(time.Hour) // in the bubble
		if err := r.Health(); err != nil {
			t.Errorf("nobody has tried for an hour: %v", err)
		}
		if f := r.Figures(); f.Failed != 1 || r.log.Count("content not put") != 1 || strings.Contains(r.log.String(), secret) {
			t.Errorf("the figures are %+v", f)
		}
	})
}

// The node ends within seconds, whatever the bucket does.
func TestTheEndIsNear(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]manner{"hanging": {hangs: true}, "failing": {status: 500, code: "InternalError"}, "well": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, false, func(r *rig) {
				r.bucket.be(says)
				for i := range 50 {
					r.Offer(r.kept(other(i)))
				}
				time.Sleep(time.Second) // in the bubble
				began := time.Now()
				r.Close()
				if took := time.Since(began); took > closeWithin {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// An upload that stands still ends.
func TestAnUploadThatStandsStill(t *testing.T) {
	t.Parallel()
	inBubble(t, false, func(r *rig) {
		k := r.kept(r.content)
		k.Open = func() (oci.Body, error) { return stuck{file{Reader: bytes.NewReader(r.content)}}, nil }
		r.Offer(k)
		time.Sleep(putStill + patience + time.Second) // in the bubble
		if err := r.Health(); err == nil || !strings.Contains(err.Error(), "stood still") {
			t.Errorf("health is %v", err)
		}
	})
}

// A stuck file sends nothing.
type stuck struct{ file }

// Send implements oci.Body.
func (stuck) Send(ctx context.Context, _ io.Writer, _, _ int64) (int64, error) {
	<-ctx.Done()
	return 0, context.Cause(ctx)
}
