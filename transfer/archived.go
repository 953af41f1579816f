package transfer

import (
	"context"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
)

// offerTag offers to the archive what a tag means, as the registry said at that time. Of a
// private registry nobody else may say that.
func offerTag(t *tags, q question, found *oci.Found, at time.Time) {
	if !q.Private {
		t.archive.OfferTag(oci.TagWord{
			Registry: q.Registry, Repository: q.Repository, Tag: q.Tag, Key: q.key, Digest: found.Digest, MediaType: found.MediaType, Size: found.Size, Checked: at,
		})
	}
}

// archivedTag gets what the archive knows of a tag while the registry fails in that way and
// no member knows: all of them may have lost their disks. It returns nil if that may not
// stand in.
func archivedTag(ctx context.Context, t *tags, q question, failed *oci.Error) *oci.Found {
	if _, absent := t.words.own(q.asked()); absent || q.Private || !failed.LastWordCounts() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, holdersWithin)
	defer cancel()
	word, ok := t.archive.LastTag(ctx, q.key)
	if !ok || !t.counts(q, word.Checked) || !oci.Accepts(q.client, word.MediaType) {
		return nil
	}
	found, err := t.manifests.byDigest(ctx, t.pinned(q, word.Digest).Request, false, q.member)
	if err != nil {
		t.log.InfoContext(ctx, "tag in the archive, and its manifest nowhere", "registry", q.Registry, "image", q.Repository, "tag", q.Tag, "digest", word.Digest.String(), "error", err)
		return nil
	}
	q.Shard.SetTag(cache.Tag{Key: q.key, Digest: word.Digest, MediaType: found.MediaType, Size: found.Size, Checked: word.Checked})
	found.Stale, found.At = failed, word.Checked
	if found.Marked() {
		t.log.WarnContext(ctx, "stale manifest served", "registry", q.Registry, "image", q.Repository, "tag", q.Tag,
			"digest", word.Digest.String(), "checked", word.Checked, "error", failed)
	}
	return found
}
