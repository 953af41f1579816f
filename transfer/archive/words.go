package archive

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"path"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

const (
	// maxWords bounds the tags that are remembered for having been put.
	maxWords = 8192
	// maxWord bounds a word in the bucket, in bytes.
	maxWord = 16 << 10
	// renewAfter is after how long what a tag means is put again though it is the same: its
	// time says how old it is.
	renewAfter = time.Hour
)

// A said is what a tag was last put as.
type said struct {
	digest digest.Digest
	at     time.Time
}

// words sign what tags mean, and remember what was put.
type words struct {
	key []byte // nil: there is no secret, so no word can be trusted

	mu  sync.Mutex // guards lru; never held during I/O
	lru *simplelru.LRU[string, said]
}

// newWords returns words that are signed by what is made of a secret.
func newWords(secret string) *words {
	lru, _ := simplelru.NewLRU[string, said](maxWords, nil) // the size is right
	w := &words{lru: lru}
	if secret != "" {
		w.key = sum([]byte(secret), []byte("oci-proxy: what tags mean"))
	}
	return w
}

// sum is a signature.
func sum(key, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	return mac.Sum(nil)
}

// A signedWord is a word as it lies in the bucket.
type signedWord struct {
	Word json.RawMessage `json:"word"` // an oci.TagWord
	Sum  string          `json:"sum"`  // over its bytes
}

// sign returns a word as it is put.
func (w *words) sign(one oci.TagWord) ([]byte, error) {
	word, err := json.Marshal(one)
	if err != nil {
		return nil, err
	}
	return json.Marshal(signedWord{word, hex.EncodeToString(sum(w.key, word))})
}

// verify returns a word from the bucket, if it was signed with the same secret for that key.
func (w *words) verify(raw []byte, key string) (one oci.TagWord, ok bool) {
	var s signedWord
	if json.Unmarshal(raw, &s) != nil {
		return one, false
	}
	got, err := hex.DecodeString(s.Sum)
	if err != nil || !hmac.Equal(got, sum(w.key, s.Word)) || json.Unmarshal(s.Word, &one) != nil {
		return oci.TagWord{}, false
	}
	return one, one.Key == key && one.Digest.Validate() == nil
}

// due reports whether a word is to be put, and notes that it is.
func (w *words) due(one oci.TagWord) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, ok := w.lru.Get(one.Key)
	if ok && last.digest == one.Digest && time.Since(last.at) < renewAfter {
		return false
	}
	w.lru.Add(one.Key, said{one.Digest, time.Now()})
	return true
}

// wordKey is the key of what a tag means.
func (b *bucket) wordKey(key string) string {
	hex := digest.FromString(key).Encoded()
	return path.Join(b.Prefix, "tags", hex[:2], hex)
}

// OfferTag implements oci.Archive.
func (a *Archive) OfferTag(one oci.TagWord) {
	if a.words.key == nil || !a.words.due(one) {
		return
	}
	text, err := a.words.sign(one)
	if err != nil || len(text) > maxWord {
		return // no name is so long
	}
	a.putter.add(item{key: a.bucket.wordKey(one.Key), renew: true, Kept: oci.Kept{
		Ref: oci.Ref{Registry: one.Registry, Repository: one.Repository, Tag: one.Tag, Digest: digest.FromBytes(text)}, MediaType: "application/json",
		Size: int64(len(text)), Open: func() (oci.Body, error) { return document{bytes.NewReader(text)}, nil },
	}})
}

// LastTag implements oci.Archive.
func (a *Archive) LastTag(ctx context.Context, key string) (one oci.TagWord, ok bool) {
	if a.words.key == nil {
		return one, false
	}
	raw, err := a.word(ctx, a.bucket.wordKey(key))
	switch {
	case err == nil, errors.Is(err, errMissing):
		a.looking.answered()
	case ctx.Err() == nil:
		a.looking.failed(err.Error(), false)
	}
	if err != nil {
		return one, false
	}
	if one, ok = a.words.verify(raw, key); !ok {
		a.log.Warn("archive has a tag that is not signed with the secret key", "key", a.bucket.wordKey(key))
	}
	return one, ok
}

// word gets the text of a word. The registry has failed, so a bucket that is out of use is
// asked as well.
func (a *Archive) word(ctx context.Context, key string) ([]byte, error) {
	limit := patience
	if !a.looking.inUse() {
		limit = lastFor
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errLate)
	defer cancel()
	o, err := a.bucket.get(ctx, key, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Close() }() // only read
	return io.ReadAll(io.LimitReader(o, maxWord))
}

// A document is a small text as content.
type document struct{ *bytes.Reader }

// Send implements oci.Body.
func (d document) Send(_ context.Context, w io.Writer, off, n int64) (int64, error) {
	return io.Copy(w, io.NewSectionReader(d.Reader, off, n))
}

// Close implements oci.Body.
func (document) Close() error { return nil }
