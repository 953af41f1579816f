package transfer

import (
	"context"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// tellersWithin is how long the other members are asked for what a tag last meant. The
// client has waited for the registry already, and may have 5 s altogether.
const tellersWithin = time.Second

// last is what this node knows of the registry's last answer about the tag: what it means
// by the question's own Accept list, or else by another; or that there is no such tag.
func (t *tags) last(q question) (mesh.Word, bool) {
	no, absent := t.words.own(q.asked())
	if all := t.noted(q); len(all) > 0 && !(absent && no.Told.After(all[0].Checked)) {
		old := all[0]
		d := oci.Descriptor{Digest: old.Digest, MediaType: old.MediaType, Size: old.Size}
		return mesh.Word{At: old.Checked, Tag: &d, Loose: old.Key != q.key}, true
	}
	return mesh.Word{At: no.Told, No: no.No}, absent
}

// noted are the notes of what the tag meant that may stand in, of types that the client
// takes: that by the question's own Accept list first, then the others, the last checked
// first.
func (t *tags) noted(q question) (all []cache.Tag) {
	own, known := q.notedBy(q.key)
	candidates := t.others(q)
	if known && oci.Accepts(q.client, own.MediaType) {
		candidates = append([]cache.Tag{own}, candidates...)
	}
	for _, old := range candidates {
		if t.counts(q, old.Checked) {
			all = append(all, old)
		}
	}
	return all
}

// counts reports whether what the registry said of the tag at that time may stand in.
func (t *tags) counts(q question, then time.Time) bool {
	return time.Since(then) <= q.StaleIfError && t.grants.Stands(q.Request, oci.ManifestResource, then)
}

// learn asks the other members for their last words on the tag, and keeps the newest if
// it is newer than this node's. It returns what else they know: what the tag meant by
// other Accept lists, the last checked first.
func (t *tags) learn(ctx context.Context, q question, began time.Time) (loose []cache.Tag) {
	all := t.words.look(ctx, q.asked(), tellersWithin, began)
	for _, one := range all {
		switch {
		case one.Tag == nil || !one.Loose:
			if t.hear(q, one.Word) {
				return nil // the others know nothing newer
			}
		case oci.Accepts(q.client, one.Tag.MediaType):
			t.grants.Grant(q.Request, oci.ManifestResource, one.At)
			loose = append(loose, cache.Tag{Key: q.key, Digest: one.Tag.Digest, MediaType: one.Tag.MediaType, Size: one.Tag.Size, Checked: one.At})
		}
	}
	return loose
}

// hear keeps a member's last word on the tag if it is newer than this node's, and reports
// whether it did.
func (t *tags) hear(q question, one mesh.Word) bool {
	own, known := t.last(q)
	if known && !own.Loose && !one.At.After(own.At) {
		return false
	}
	switch {
	case one.No != nil:
		t.words.keep(q.asked(), one)
		return true
	case one.Tag == nil || one.Loose || !oci.Accepts(q.client, one.Tag.MediaType):
		return false
	}
	t.grants.Grant(q.Request, oci.ManifestResource, one.At)
	if !t.counts(q, one.At) {
		return false
	}
	if known && own.Tag != nil && own.Tag.Digest == one.Tag.Digest && one.At.Sub(own.At) < relayAgain {
		return true // its time is counted by two clocks
	}
	t.note(q, *one.Tag, one.At)
	return true
}

// newest returns the newest of what may stand in: what was found, nil for nothing; what
// this node has noted, maybe just now; and, for want of these, what others know loosely.
func (t *tags) newest(ctx context.Context, q question, found *oci.Found, failed *oci.Error, loose []cache.Tag) *oci.Found {
	if own, ok := q.notedBy(q.key); ok && oci.Accepts(q.client, own.MediaType) && t.counts(q, own.Checked) &&
		(found == nil || own.Digest != found.Digest && own.Checked.After(found.At)) {
		if better, ok := t.stale(ctx, q, own, failed); ok {
			return better
		}
	}
	for _, old := range loose {
		if found != nil {
			break
		}
		if other, ok := t.stale(ctx, q, old, failed); ok {
			found = other
		}
	}
	return found
}
