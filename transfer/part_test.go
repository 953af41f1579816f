package transfer_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// leavePart runs a rig whose node stops when it has n bytes of the blob.
func leavePart(t *testing.T, dir string, seed uint64, size, n int64) (*rig, oci.Ref, []byte) {
	t.Helper()
	r := newRig(t, setup{dir: dir})
	d, content := r.put(seed, size)
	r.registry.Fault(upstreamtest.Fault{Match: get, Times: 1, Stall: true, StallAfter: n})
	a, err := r.Blob(t.Context(), r.ref(d))
	if err != nil {
		t.Fatal(err)
	}
	slow := &checker{left: content}
	if k, err := a.Send(t.Context(), slow, 0, n); err != nil { // the node has all n bytes by then
		t.Fatal(k, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	r.end()
	return r, r.ref(d), content
}

// partOf returns the file of the only part in a store, and its note.
func partOf(t *testing.T, dir string) (part, note string) {
	t.Helper()
	notes, err := filepath.Glob(filepath.Join(dir, "tmp", "*.meta"))
	if err != nil || len(notes) != 1 {
		t.Fatalf("notes of parts: %q, %v", notes, err)
	}
	part, _, _ = strings.Cut(notes[0][len(dir):], ".")
	return dir + part, notes[0]
}

func TestAPartSurvivesARestart(t *testing.T) {
	t.Parallel()
	const size, n = 5 * mib, 2*mib + 1000
	for name, c := range map[string]struct {
		do   func(part, note string)
		from int64
	}{
		"whole":     {func(string, string) {}, n},
		"corrupt":   {func(p, _ string) { _ = os.WriteFile(p, make([]byte, n), 0o600) }, 0},
		"torn":      {func(p, _ string) { _ = os.Truncate(p, mib+1) }, mib},
		"too long":  {func(p, _ string) { _ = os.Truncate(p, 2*size) }, n},
		"note gone": {func(_, note string) { _ = os.Remove(note) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r, ref, content := leavePart(t, dir, 1, size, n)
			c.do(partOf(t, dir))
			again := newRig(t, setup{dir: dir, registry: r.registry})
			again.mustPull(ref, content, oci.Miss)
			want := []string{"", ""}
			if c.from > 0 {
				want[1] = "bytes=" + strconv.FormatInt(c.from, 10) + "-"
			}
			if got := again.ranges(ref.Digest); !slices.Equal(got, want) {
				t.Errorf("upstream was asked for %q, want %q", got, want)
			}
			again.events.await(filled, 1)
			again.mustPull(ref, content, oci.Hit)
		})
	}
}

// answerWith makes upstream answer everything with that status and size.
func answerWith(r *rig, status int, content []byte, times int) {
	r.registry.Fault(upstreamtest.Fault{Match: get, Times: times, Wrap: func(w http.ResponseWriter, _ *http.Request) bool {
		if status == http.StatusPartialContent {
			w.Header().Set("Content-Range", "bytes 2097152-5242880/5242881")
		}
		w.WriteHeader(status)
		_, _ = w.Write(content)
		return true
	}})
}

func TestAPartThatUpstreamDoesNotGoOnFrom(t *testing.T) {
	t.Parallel()
	const size, n = 5 * mib, 2 * mib
	for name, fault := range map[string]func(r *rig, content []byte){
		"the size has changed": func(r *rig, content []byte) { answerWith(r, http.StatusPartialContent, content[n:], 1) },
		"there is less":        func(r *rig, _ []byte) { answerWith(r, http.StatusRequestedRangeNotSatisfiable, nil, 1) },
		"no ranges": func(r *rig, _ []byte) {
			r.registry.Fault(upstreamtest.Fault{Match: get, IgnoreRange: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r, ref, content := leavePart(t, dir, 2, size, n)
			again := newRig(t, setup{dir: dir, registry: r.registry})
			fault(again, content)
			again.mustPull(ref, content, oci.Miss)
			again.events.await(filled, 1)
			again.mustPull(ref, content, oci.Hit)
		})
	}
}

// If upstream answers with an error, the client gets that error before the first byte,
// whether the node has a part or not.
func TestAPartIsNotServedWhereUpstreamRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, ref, content := leavePart(t, dir, 3, 5*mib, 2*mib)
	again := newRig(t, setup{dir: dir, registry: r.registry, private: func(string) bool { return true }})
	answerWith(again, http.StatusForbidden, nil, 1)
	k, _, err := again.pull(ref, content, 0, -1)
	wantKind(t, err, oci.Denied)
	if k != 0 {
		t.Errorf("%d bytes were sent", k)
	}
	again.events.await(notFilled, 1)
	again.mustPull(ref, content, oci.Miss)
	if got := again.ranges(ref.Digest); got[len(got)-1] != "bytes=2097152-" {
		t.Errorf("upstream was asked for %q", got)
	}
}

// A download that fails for good leaves its part for the next request.
func TestAPartOfADownloadThatFailed(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	d, content := r.put(4, 5*mib)
	r.registry.Fault(upstreamtest.Fault{Match: get, Times: 1, CutAfter: 2 * mib})
	r.registry.Fault(upstreamtest.Fault{Match: get, Status: http.StatusRequestedRangeNotSatisfiable})
	if _, _, err := r.pull(r.ref(d), content, 0, -1); err == nil {
		t.Fatal("the blob came although the download fails")
	}
	r.events.await(notFilled, 1)
	r.registry.ClearFaults()
	r.mustPull(r.ref(d), content, oci.Miss)
	if got := r.ranges(d); got[len(got)-1] != "bytes=2097152-" {
		t.Errorf("upstream was asked for %q", got)
	}
}
