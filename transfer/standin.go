package transfer

import (
	"context"
	"slices"
	"strings"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
)

// keyFor is what the answer to the question is remembered by if upstream is sent that
// Accept list.
func (q question) keyFor(accept []string) string { return tagKey(q.Ref, accept) }

// tagKey is what the meaning of ref's tag is remembered by if upstream is sent that Accept
// list.
func tagKey(ref oci.Ref, accept []string) string {
	return strings.Join(append([]string{ref.Registry, ref.Repository, ref.Tag}, accept...), " ")
}

// place is the key whose owner knows the tag for all nodes, whatever list a client has: it
// has to know what the tag means by each.
func (q question) place() string { return placeOf(q.Ref) }

// standIn gets what stands in for a fresh answer while upstream fails: what the tag last
// meant by the client's own Accept list; but if that is not known any more or of a type
// that the client does not take, what the tag meant by another list, of a type that it
// takes, checked last.
func (t *tags) standIn(ctx context.Context, q question, own cache.Tag, known bool, err error) (*oci.Found, bool) {
	known = known && t.grants.Stands(q.Request, oci.ManifestResource, own.Checked)
	if e, ok := oci.AsError(err); !ok || !e.LastWordCounts() {
		return nil, false
	}
	if known && oci.Accepts(q.client, own.MediaType) {
		if found, ok := t.stale(ctx, q, own, err); ok {
			return found, true
		}
	}
	limited, cancel := context.WithTimeout(ctx, holdersWithin)
	defer cancel()
	for _, old := range t.others(q) {
		if found, ok := t.stale(limited, q, old, err); ok {
			return found, true
		}
	}
	if !known {
		return nil, false
	}
	return t.stale(ctx, q, own, err)
}

// acceptLists are those by which a tag may be known.
var acceptLists = oci.AcceptLists()

// notedBy is what is noted of the tag by a key.
func (q question) notedBy(key string) (cache.Tag, bool) {
	tag, ok := q.Shard.Tag(key)
	return q.past(tag), ok
}

// longAgo is when an answer from a time to come was given at the latest, as far as answers
// are compared.
const longAgo = 365 * 24 * time.Hour

// past is a note whose time is not to come. One from a clock that was set back since may
// be of any age: others count before it, but it stands in for want of them.
func (q question) past(note cache.Tag) cache.Tag {
	if now := time.Now(); note.Checked.After(now) {
		note.Checked = now.Add(-min(q.StaleIfError/2, longAgo))
	}
	return note
}

// others are what the tag meant by other Accept lists, of types that the client takes,
// the last checked first.
func (t *tags) others(q question) (all []cache.Tag) {
	for _, list := range acceptLists {
		key := q.keyFor(list)
		if key == q.key {
			continue
		}
		if old, ok := q.notedBy(key); ok && oci.Accepts(q.client, old.MediaType) && t.grants.Stands(q.Request, oci.ManifestResource, old.Checked) {
			all = append(all, old)
		}
	}
	slices.SortStableFunc(all, func(a, b cache.Tag) int { return b.Checked.Compare(a.Checked) })
	return all
}
