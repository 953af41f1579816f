package transfer

import (
	"context"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
)

// find gets the manifest that a tag means now, as upstream has it, or if upstream fails
// the one that it last meant. That there is no such tag is remembered as well: clients that
// look for a signature under several names go on at a 404 alone.
func (t *tags) find(ctx context.Context, of grants.Request, client []string, head, member bool) (*oci.Found, error) {
	began, q := time.Now(), t.question(of, client, head, member)
	found, err := t.known(ctx, q)
	a := q.asked()
	var failed *oci.Error
	switch {
	case err == nil && found.Stale == nil:
		t.words.present(a)
		return found, nil
	case err == nil:
		failed = found.Stale
	default:
		t.words.hear(a, err)
		var passes bool
		if failed, passes = fails(ctx, err); !passes {
			return nil, err
		}
	}
	if !member {
		found = t.newest(ctx, q, found, failed, t.learn(ctx, q, began))
	}
	if found == nil {
		found = archivedTag(ctx, t, q, failed)
	}
	if found == nil {
		return nil, t.words.instead(a, failed)
	}
	if w, ok := t.words.own(a); ok && w.Told.After(found.At) { // it may be older than what is known of its absence
		return nil, t.words.instead(a, failed)
	}
	return found, nil
}

// heard is the error of another node that was asked for a tag. If it tells of an earlier
// answer of the registry, that is kept, and the error is how the registry fails.
func (t *tags) heard(q question, err error) error {
	e, ok := oci.AsError(err)
	if !ok || e.Told.IsZero() {
		return err
	}
	t.words.hear(q.asked(), e)
	return e.Err
}

// asked is the question whether there is such a tag.
func (q question) asked() asked {
	return asked{Request: q.Request, accept: q.accept}
}
