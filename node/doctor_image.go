package node

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstream"
)

// image makes the steps from the name of an image to a byte of it. It reports whether all
// went well.
func (w *walk) image(ctx context.Context, ref oci.Ref) bool {
	began := time.Now()
	d, err := w.client.Stat(ctx, ref, false, oci.ManifestTypes)
	trips := w.heard()
	switch last := lastOf(trips); {
	case err != nil && last.To == oci.TokenServer:
		return w.fail("token", time.Since(began), err)
	case err != nil:
		return w.fail("head", time.Since(began), err)
	}
	if ref.Digest == "" {
		ref.Digest, ref.Tag = d.Digest, ""
	}
	w.head(d, trips, time.Since(began))
	began = time.Now()
	blob, err := w.blob(ctx, ref, d.Manifest)
	w.heard()
	if err != nil {
		return w.fail("manifest", time.Since(began), err)
	}
	if blob == "" {
		w.add("storage", Finding{Level: Skipped, Text: "the manifest lists no blob"})
		return true
	}
	w.fine("manifest", time.Since(began), "it lists %.19s…", blob)
	ref.Digest = blob
	return w.storage(ctx, ref)
}

// head adds the step of the HEAD.
func (w *walk) head(d oci.Descriptor, trips []upstream.Trip, took time.Duration) {
	for _, t := range trips {
		if q := t.Quota; q.Limit > 0 && t.To == oci.Registry {
			f := fine("it is %s; %d of %d requests of the rate limit are left", d.Digest, q.Remaining, q.Limit)
			if q.Low(lowQuota) {
				f.Level = Doubtful
			}
			w.add("head", f).TookMS = took.Milliseconds()
			return
		}
	}
	w.fine("head", took, "it is %s", d.Digest)
}

// lowQuota is the percentage of its rate limit below which a registry is doubtful.
const lowQuota = 10

// blob returns a blob of an image: the last layer, of the first manifest that lists any. It
// is "" if there is none. known is the image's manifest, if it is known.
func (w *walk) blob(ctx context.Context, ref oci.Ref, known *oci.Manifest) (digest.Digest, error) {
	for range 3 { // indexes may list indexes
		if known == nil {
			m, err := w.client.Manifest(ctx, ref, oci.ManifestTypes)
			if err != nil {
				return "", err
			}
			known = &m
		}
		parts := oci.Parts(known.MediaType, known.Bytes)
		if len(parts) == 0 {
			return "", nil
		}
		if last := parts[len(parts)-1]; last.As == oci.BlobResource {
			return last.Digest, nil
		}
		ref.Digest, known = parts[0].Digest, nil
	}
	return "", nil
}

// storage asks for the first byte of a blob, wherever the registry sends clients for it. It
// reports whether it came.
func (w *walk) storage(ctx context.Context, ref oci.Ref) bool {
	began := time.Now()
	s, _, err := w.client.UpTo(ctx, ref, oci.Span{Length: 1})
	took := time.Since(began)
	if err == nil && s.Body != nil {
		_ = s.Body.Close() // nothing of it is wanted
	}
	trips := w.heard()
	sent, from := "", upstream.Trip{} // where the registry sends clients, and who answers there
	for _, t := range trips {
		switch {
		case t.To == oci.Registry && t.Location != "":
			sent, from = t.Location, upstream.Trip{}
		case t.To == oci.Storage:
			from = t
		}
	}
	switch {
	case err != nil && sent != "" && (from.Host == "" || oci.KindOf(err) == oci.Denied && from.Status == 0): // not followed
		return w.fail("redirect", took, err)
	case err == nil && s.Redirect != "":
		w.fine("redirect", took, "clients are sent to storage (follow_redirects: false), so this node does not go there")
		return true
	case sent == "":
		w.fine("redirect", 0, "none: the registry sends blobs itself")
	default:
		w.fine("redirect", 0, "blobs are at %s", sent)
	}
	if err != nil {
		return w.fail("storage", took, err)
	}
	w.fine("storage", took, "%s sends the blob", s.Host)
	return true
}

// lastOf is the last of some requests, the zero Trip if there was none.
func lastOf(trips []upstream.Trip) (t upstream.Trip) {
	if len(trips) > 0 {
		t = trips[len(trips)-1]
	}
	return t
}
