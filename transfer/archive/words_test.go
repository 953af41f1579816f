package archive

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
)

// word is what a tag means.
func (r *rig) word(content string) oci.TagWord {
	return oci.TagWord{
		Registry: own, Repository: "a/b", Tag: "v1", Key: own + " a/b v1", Digest: r.kept([]byte(content)).Digest, MediaType: mediaType, Size: 7, Checked: time.Now().UTC(),
	}
}

// What a tag means is put when it changes, and once an hour, and comes back as it was.
func TestATagsWord(t *testing.T) {
	t.Parallel()
	inBubble(t, false, func(r *rig) {
		one := r.word("one")
		r.OfferTag(one)
		r.OfferTag(r.word("one"))
		synctest.Wait()
		if asked := r.bucket.took(); len(asked) != 1 || !strings.HasPrefix(asked[0], "PUT tier/one/tags/") {
			t.Errorf("the bucket was asked %q", asked)
		}
		if got, ok := r.LastTag(r.t.Context(), one.Key); !ok || got != one {
			t.Errorf("got %+v, %v", got, ok)
		}
		two := r.word("two")
		r.OfferTag(two)
		synctest.Wait()
		if got, ok := r.LastTag(r.t.Context(), one.Key); !ok || got != two {
			t.Errorf("got %+v, %v", got, ok)
		}
		time.Sleep(renewAfter) // in the bubble
		later := r.word("two")
		r.OfferTag(later)
		synctest.Wait()
		if got, ok := r.LastTag(r.t.Context(), one.Key); !ok || got != later {
			t.Errorf("got %+v, %v", got, ok)
		}
		if _, ok := r.LastTag(r.t.Context(), "another"); ok || r.Health() != nil {
			t.Error("a tag that nobody put")
		}
	})
}

// Who can write to the bucket can't move a tag.
func TestATagsWordIsSigned(t *testing.T) {
	t.Parallel()
	inBubble(t, false, func(r *rig) {
		one := r.word("one")
		r.OfferTag(one)
		synctest.Wait()
		key := r.Archive.bucket.wordKey(one.Key)
		text, _, ok := r.bucket.has(key)
		if !ok {
			t.Fatal("it was not put")
		}
		foreign, err := newWords("another secret").sign(one)
		if err != nil {
			t.Fatal(err)
		}
		for name, forged := range map[string][]byte{
			"another digest": bytes.Replace(text, []byte(one.Digest), []byte(r.word("two").Digest), 1),
			"another tag's":  bytes.ReplaceAll(text, []byte(" v1"), []byte(" v2")),
			"a later time":   bytes.Replace(text, []byte(`"checked":"2`), []byte(`"checked":"3`), 1),
			"another secret": foreign,
			"no signature":   []byte(`{"word":{},"sum":""}`),
			"not JSON":       []byte("<html>"),
			"nothing":        nil,
		} {
			r.bucket.hold(key, "application/json", forged)
			if got, ok := r.LastTag(r.t.Context(), one.Key); ok || bytes.Equal(forged, text) {
				t.Errorf("%s: %+v", name, got)
			}
		}
		r.bucket.hold(r.Archive.bucket.wordKey("b"), "application/json", text) // it is for another key
		if _, ok := r.LastTag(r.t.Context(), "b"); ok {
			t.Error("a word moved to another tag")
		}
	})
}

// A bucket in trouble is waited for, for a while.
func TestATagsWordComesInTime(t *testing.T) {
	t.Parallel()
	inBubble(t, false, func(r *rig) {
		one := r.word("one")
		r.OfferTag(one)
		synctest.Wait()
		r.bucket.be(manner{hangs: true})
		for _, limit := range []time.Duration{patience, lastFor} {
			began := time.Now()
			if _, ok := r.LastTag(r.t.Context(), one.Key); ok || time.Since(began) > limit {
				t.Errorf("it took %v", time.Since(began))
			}
		}
		r.bucket.be(manner{delay: time.Second})
		if _, ok := r.LastTag(r.t.Context(), one.Key); !ok || r.Health() != nil {
			t.Error("the bucket is out of use, but the registry fails")
		}
	})
}
