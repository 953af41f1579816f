package grants

import (
	"log/slog"
	"slices"
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

// oldRead is the file that says that the notes of earlier versions are read over.
const oldRead = "earlier-notes-read"

// readOld reads the notes of an earlier version over, once: it writes them in
// today's form, and then removes the old ones. have are the registries with notes in
// today's form. Those hold the old ones already, but for marks that could not be read
// when this was tried before. It returns the registries that could not be written.
func readOld(f *cache.Folder, l *ledger, log *slog.Logger, have []string) (anew []string) {
	var all []cache.Tag
	unread := f.OldTags([]string{""}, func(t cache.Tag) error {
		all = append(all, t)
		return nil
	})
	if unread != nil {
		l.goBlind()
		log.Error("notes of an earlier version not read: every registry is asked before its content is served; the next start tries again", "error", unread)
	}
	repos := map[oci.Ref]cache.Tag{} // the refusals; nothing counts in a repository without one
	for _, t := range all {
		if words := strings.Split(t.Key, " "); words[0] == oldRefused && len(words) == 3 {
			repos[oci.Ref{Registry: words[1], Repository: words[2]}] = t
		}
	}
	read := map[string]bool{}
	for _, t := range all {
		name, records := oldRecords(t, strings.Split(t.Key, " "), repos)
		if slices.Contains(have, name) {
			records = slices.DeleteFunc(records, func(r record) bool { return r.kind != wasPrivate })
		}
		if len(records) > 0 {
			l.read(name, records)
			read[name] = true
		}
	}
	for name := range read {
		if err := f.Write(fileOf(name), encodeFile(name, l.records(name))); err != nil {
			log.Debug("note about private content not written", "registry", name, "error", err)
			anew = append(anew, name)
		}
	}
	if unread == nil && len(anew) == 0 {
		finishOld(f, all, log)
	}
	return anew
}

// finishOld says that the old notes are read over, and removes them.
func finishOld(f *cache.Folder, all []cache.Tag, log *slog.Logger) {
	if err := f.Write(oldRead, nil); err != nil {
		log.Debug("old notes are read again at the next start", "error", err)
		return
	}
	for _, t := range all {
		switch word, _, _ := strings.Cut(t.Key, " "); word {
		case oldVouched, oldDelivered, oldRefused, oldPrivate:
			if err := f.RemoveOldTag(t.Key); err != nil {
				log.Debug("note of an earlier version not removed", "error", err)
			}
		}
	}
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
		// The note does not tell as what. If it was the other, the registry says so
		// when it is asked.
		return ref.Registry, oldGrant(t, repos[ref.Repo()], repoKey(ref), contentKey(ref, oci.BlobResource), contentKey(ref, oci.ManifestResource))
	case len(words) >= 3 && !strings.HasPrefix(words[0], "?") && !strings.HasPrefix(words[0], cache.Kept):
		ref := oci.Ref{Registry: words[0], Repository: words[1], Tag: words[2]}
		return ref.Registry, oldGrant(t, repos[ref.Repo()], repoKey(ref), contentKey(ref, oci.ManifestResource))
	default:
		return strangers, nil
	}
}

// oldGrant is what an old note, or a tag, says that a registry vouched for by it,
// unless it refused the repository later.
func oldGrant(t, refusal cache.Tag, repo key, content ...key) []record {
	if refusal.Key == "" || !t.Checked.After(refusal.Checked) {
		return nil
	}
	out := []record{{kind: wasPrivate}, {kind: known, repo: repo}}
	if !refusal.Checked.IsZero() {
		out = append(out, record{kind: refused, repo: repo, at: refusal.Checked.UnixNano()})
	}
	for _, k := range content {
		out = append(out, record{kind: vouched, repo: repo, key: k, at: t.Checked.UnixNano()})
	}
	return out
}
