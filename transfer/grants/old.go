package grants

import (
	"log/slog"
	"strings"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"

	"github.com/opencontainers/go-digest"
)

// Versions before 2026-12 kept their notes among the tags, under these keys. Words
// follow, parted by spaces: a registry, and what it is about.
const (
	oldVouched   = "?vouched"
	oldDelivered = "?delivered"
	oldRefused   = cache.Kept + "refused"
	oldPrivate   = cache.Kept + "private"
)

// readOld reads the notes of an earlier version over, once: it writes them in
// today's form, and then removes the old ones. It returns the registries that
// could not be written.
func readOld(f *cache.Folder, l *ledger, log *slog.Logger) (anew []string) {
	var all []cache.Tag
	err := f.OldTags([]string{oldVouched + " ", oldDelivered + " ", oldRefused + " ", oldPrivate + " "}, func(t cache.Tag) error {
		all = append(all, t)
		return nil
	})
	if err != nil {
		log.Warn("some notes of an earlier version not read: their registries are asked again", "error", err)
	}
	repos := map[oci.Ref]cache.Tag{} // the refusals; nothing counts in a repository without one
	for _, t := range all {
		if words := strings.Split(t.Key, " "); words[0] == oldRefused && len(words) == 3 {
			repos[oci.Ref{Registry: words[1], Repository: words[2]}] = t
		}
	}
	for _, t := range all {
		name, records := oldRecords(t, strings.Split(t.Key, " "), repos)
		l.read(name, records)
	}
	for _, name := range append(l.names(), strangers) { // that one always, so that old notes are looked for once
		if err := f.Write(fileOf(name), encodeFile(name, l.records(name))); err != nil {
			log.Debug("note about private content not written", "registry", name, "error", err)
			anew = append(anew, name)
		}
	}
	if len(anew) > 0 {
		return anew
	}
	for _, t := range all {
		if err := f.RemoveOldTag(t.Key); err != nil {
			log.Debug("note of an earlier version not removed", "error", err)
		}
	}
	return nil
}

// oldRecords is what one old note says, and the book that it belongs to.
func oldRecords(t cache.Tag, words []string, repos map[oci.Ref]cache.Tag) (book string, out []record) {
	switch {
	case words[0] == oldPrivate && len(words) == 2:
		return words[1], []record{{kind: wasPrivate}}
	case words[0] == oldDelivered && len(words) == 3:
		ref := oci.Ref{Registry: words[1], Digest: digest.Digest(words[2])}
		return strangers, []record{{kind: delivered, key: deliveredKey(ref), at: t.Checked.UnixNano()}}
	case words[0] == oldVouched && len(words) == 4:
		ref := oci.Ref{Registry: words[1], Repository: words[2], Digest: digest.Digest(words[3])}
		refusal, noted := repos[ref.Repo()]
		if !noted || !t.Checked.After(refusal.Checked) {
			return words[1], nil
		}
		// The note does not tell as what. If it was the other, the registry says so
		// when it is asked.
		at, repo := t.Checked.UnixNano(), repoKey(ref)
		out = []record{{kind: wasPrivate}, {kind: known, repo: repo}}
		if !refusal.Checked.IsZero() {
			out = append(out, record{kind: refused, repo: repo, at: refusal.Checked.UnixNano()})
		}
		for _, as := range []oci.Resource{oci.BlobResource, oci.ManifestResource} {
			out = append(out, record{kind: vouched, repo: repo, key: contentKey(ref.Digest, as), at: at})
		}
		return words[1], out
	default:
		return strangers, nil
	}
}
