package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/pages"
)

// An Intake takes in content that no registry sent: an operator brings it and vouches for
// it, as the registry would. What it says of tags and lists goes to the nodes that keep
// that, as a registry's answer does. Its methods may be called from any goroutine.
type Intake struct{ f *Fetcher }

// Intake returns the Intake of the node.
func (f *Fetcher) Intake() Intake { return Intake{f} }

// errNotKept: the shard took nothing in.
var errNotKept = errors.New("the cache has no room for it, or its disk fails")

// Manifest takes in the manifest that ref's digest names, of that media type. A private
// registry's is not served before Vouch. The error says why it was not kept.
func (in Intake) Manifest(ctx context.Context, ref oci.Ref, mediaType string, content []byte) error {
	q := in.f.request(ref)
	stored, err := in.f.manifests.keep(ctx, q, &oci.Manifest{Digest: ref.Digest, MediaType: oci.KeptType(mediaType, content), Bytes: content}, time.Time{})
	if err == nil && !stored {
		err = errNotKept
	}
	return err
}

// Vouch says that ref's repository has the manifest that ref's digest names, with all the
// blobs that it lists. Say it of a manifest of which all of these were taken in.
func (in Intake) Vouch(ref oci.Ref) {
	in.f.grants.Grant(in.f.request(ref), oci.ManifestResource, time.Now())
}

// Blob takes in the blob that the digest of all refs names, of that size in bytes, for
// the repositories of all. r need not be read to its end, but what is held already is
// compared with it all the same: a file vouches for the bytes that are in it, and unlocks
// nothing of which it only knows the digest. The error says why it was not kept.
func (in Intake) Blob(ctx context.Context, refs []oci.Ref, size int64, r io.Reader) error {
	lacks := func(ref oci.Ref) bool { return !in.Holds(ref) }
	now, first := time.Now(), max(0, slices.IndexFunc(refs, lacks)) // that takes the bytes
	for i := range refs {
		ref := refs[(first+i)%len(refs)]
		q := in.f.request(ref)
		var err error
		switch {
		case i == 0 && lacks(ref):
			err = takeBlob(ctx, q, size, r)
		case i == 0:
			err = compare(ref.Digest, r)
		case lacks(ref):
			err = fmt.Errorf("%w: a registry's cache_dir of its own needs an import of its own", errNotKept)
		}
		if err != nil {
			return err
		}
		in.f.grants.Delivered(q, oci.BlobResource, now)
	}
	return nil
}

// Holds reports whether what ref's digest names is in the cache: what came later may have
// taken its place.
func (in Intake) Holds(ref oci.Ref) bool {
	_, held := in.f.request(ref).Shard.Stat(ref.Digest)
	return held
}

// compare reads what is to have that digest.
func compare(d digest.Digest, r io.Reader) error {
	v := d.Verifier()
	if _, err := io.Copy(v, r); err != nil {
		return err
	}
	if !v.Verified() {
		return fmt.Errorf("%w: want %s", cache.ErrDigest, d)
	}
	return nil
}

// takeBlob reads a blob into the shard.
func takeBlob(ctx context.Context, q grants.Request, size int64, r io.Reader) error {
	ingest, err := q.Shard.Ingest(ctx, q.Digest, q.Registry, "")
	if err != nil {
		return err
	}
	ingest.SetSize(size)
	err = errNotKept
	if ingest.Keeping() {
		if _, err = io.Copy(ingest, r); err == nil && ingest.Keeping() {
			err = ingest.Commit()
		} else if err == nil {
			err = errNotKept
		}
	}
	if err != nil {
		ingest.Abort(err)
	}
	return err
}

// Tag says that ref's tag means a manifest that was taken in, from now on.
func (in Intake) Tag(ref oci.Ref, mediaType string, d digest.Digest, size int64) {
	q := in.f.tags.question(in.f.request(ref), nil, true, true)
	in.f.tags.words.present(q.asked())
	in.f.tags.note(q, oci.Descriptor{Digest: d, MediaType: mediaType, Size: size}, time.Now())
	in.f.relay.tell(q.asked(), d.String())
}

// Absent says that there is no tag of ref's name, unless the registry ever said
// otherwise.
func (in Intake) Absent(ref oci.Ref) {
	q := in.f.tags.question(in.f.request(ref), nil, true, true)
	if _, known := in.f.tags.last(q); known {
		return
	}
	no := &oci.Error{Kind: oci.NotFound, Registry: ref.Registry, By: oci.Registry, Status: 404, Reason: "there was no such tag when the image was exported"}
	q.Shard.Pages.Note(q.asked().question(), pages.Word{Told: time.Now(), No: no}, q.Stranger)
	in.f.relay.tell(q.asked(), no.Kind.String())
}

// Tags adds tags to what is known of the list of ref's repository.
func (in Intake) Tags(ctx context.Context, ref oci.Ref, tags []string) error {
	q := in.f.asked(oci.Question{Ref: ref.Repo()})
	var list struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if err := in.known(q, &list); err != nil {
		return err
	}
	list.Name, list.Tags = ref.Repository, append(list.Tags, tags...)
	slices.Sort(list.Tags)
	list.Tags = slices.Compact(list.Tags)
	return in.keep(ctx, q, list, "application/json")
}

// Referrers adds descriptors, each a JSON object, to what is known of what refers to
// ref's digest. There may be none.
func (in Intake) Referrers(ctx context.Context, ref oci.Ref, more []json.RawMessage) error {
	ref.Tag = ""
	q := in.f.asked(oci.Question{Ref: ref})
	var list struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}
	if err := in.known(q, &list); err != nil {
		return err
	}
	have := map[string]bool{}
	for _, raw := range list.Manifests {
		have[digestIn(raw)] = true
	}
	for _, raw := range more {
		if d := digestIn(raw); !have[d] {
			have[d] = true
			list.Manifests = append(list.Manifests, raw)
		}
	}
	if list.Manifests == nil {
		list.Manifests = []json.RawMessage{}
	}
	list.SchemaVersion, list.MediaType = 2, "application/vnd.oci.image.index.v1+json"
	return in.keep(ctx, q, list, list.MediaType)
}

// digestIn is the digest in a descriptor.
func digestIn(raw json.RawMessage) string {
	var d struct {
		Digest string `json:"digest"`
	}
	_ = json.Unmarshal(raw, &d) // one that can't be read is like no other
	return d.Digest
}

// known reads what is known of a list, if anything is and it is one page.
func (in Intake) known(q asked, list any) error {
	page, ok := in.f.lists.kept(q)
	if !ok {
		return nil
	}
	var b bytes.Buffer
	err := errors.Join(page.Send(&b), page.Close())
	if err == nil && page.Page.Next != "" {
		return nil // the registry's list goes on where nobody can ask
	}
	if err == nil {
		err = json.Unmarshal(b.Bytes(), list)
	}
	if err != nil {
		return fmt.Errorf("reading the list that was kept: %w", err)
	}
	return nil
}

// keep keeps a list as the registry's last answer.
func (in Intake) keep(ctx context.Context, q asked, list any, mediaType string) error {
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	page, err := in.f.lists.takeIn(ctx, q, func(_ context.Context, to oci.Sink) (*oci.Page, oci.Provenance, error) {
		_, err := to.Write(b)
		return &oci.Page{MediaType: mediaType, By: oci.Registry}, oci.Provenance{At: time.Now()}, err
	})
	if err != nil {
		return err
	}
	if !page.Stored {
		return errors.Join(errNotKept, page.Close())
	}
	in.f.relay.tell(q, page.Sum)
	return page.Close()
}
