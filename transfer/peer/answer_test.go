package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wire"
)

// sealed signs each of answer's answers with k, for the request that it answers.
func sealed(k key, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a, _ := parseAuth(r.Header.Get(headerAuth))
		answer(&reply{Paced: wire.Pace(w, r, time.Minute), key: k, request: a.mac}, r)
	}
}

// claims lists answers that an impostor may want a node to believe.
var claims = map[string]http.HandlerFunc{
	"yes": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
	"a presence": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerPresence, "held")
		w.WriteHeader(http.StatusNoContent)
	},
	"a redirect": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerRedirect, "https://evil.example/layer")
		w.WriteHeader(http.StatusNoContent)
	},
	"a tag":      saying(fmt.Sprintf(`{"digest":%q,"media_type":"application/vnd.oci.image.manifest.v1+json","size":5}`, somewhere.Digest)),
	"progress":   saying(`{"held":true,"offset":1000000000000}`),
	"a manifest": saying(`{"schemaVersion":2}`),
	"a blob":     saying("x"),
	"a stale tag": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerStale, encodeError(&oci.Error{Kind: oci.Unavailable, Status: 503}))
		saying(fmt.Sprintf(`{"digest":%q}`, somewhere.Digest))(w, r)
	},
	"a denial": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerError, encodeError(&oci.Error{Kind: oci.Denied, By: oci.Registry, Status: 403}))
		refuse(w, http.StatusForbidden, failedUpstream)
	},
	"not found": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerError, encodeError(&oci.Error{Kind: oci.NotFound, By: oci.Registry, Status: 404}))
		refuse(w, http.StatusNotFound, failedUpstream)
	},
	"busy": func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusServiceUnavailable, failedBusy) },
}

// saying answers with that body and the sum of it.
func saying(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Header().Set(headerBody, bodySum([]byte(body)))
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, body)
	}
}

// An impostor without the secret, at the address of a crashed node, is never believed.
func TestAnImpostorIsNeverBelieved(t *testing.T) {
	t.Parallel()
	for how, as := range map[string]func(http.HandlerFunc) http.HandlerFunc{
		"unsigned": func(answer http.HandlerFunc) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set(headerMark, version)
				answer(w, r)
			}
		},
		"signed with another secret": func(answer http.HandlerFunc) http.HandlerFunc {
			return sealed(newKey([]byte("the secret of another cluster")), answer)
		},
		"signed with nothing": func(answer http.HandlerFunc) http.HandlerFunc { return sealed(key{}, answer) },
		"with the request's signature": func(answer http.HandlerFunc) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				a, _ := parseAuth(r.Header.Get(headerAuth))
				w.Header().Set(headerMark, version)
				w.Header().Set(headerAuth, fmt.Sprintf("v%s %x", version, a.mac))
				answer(w, r)
			}
		},
	} {
		for claim, answer := range claims {
			t.Run(claim+" "+how, func(t *testing.T) {
				t.Parallel()
				c, b := impostor(t, as(answer))
				for name, call := range calls {
					if e := wantPeerError(t, call(t.Context(), c, b), "sign"); e.Busy {
						t.Errorf("%s: the impostor counts as busy, which is a sign of life", name)
					}
				}
				l, err := c.links.to("b")
				if err != nil || c.ping(l) == nil || c.Healthy("b") {
					t.Errorf("the impostor counts as alive: %v", err)
				}
			})
		}
	}
}

// A node believes the same claims from a member that knows the secret. So the test above
// does not pass for another reason.
func TestAMemberIsBelieved(t *testing.T) {
	t.Parallel()
	for claim, call := range map[string]string{
		"yes": "offer", "a presence": "peek", "a tag": "tag", "progress": "progress", "a manifest": "manifest",
		"a blob": "open", "a redirect": "open", "a stale tag": "tag",
	} {
		c, b := impostor(t, sealed(newKey(secret), claims[claim]))
		if err := calls[call](t.Context(), c, b); err != nil {
			t.Errorf("%s: %v", claim, err)
		}
	}
	for claim, kind := range map[string]oci.Kind{"a denial": oci.Denied, "not found": oci.NotFound} {
		c, b := impostor(t, sealed(newKey(secret), claims[claim]))
		if e := wantError(t, calls["tag"](t.Context(), c, b), kind); !e.Authoritative() {
			t.Errorf("%s: by %v", claim, e.By)
		}
	}
}

// Older members don't sign. TLS proves who they are, and nothing else does.
func TestOlderMembersAreBelievedOverTLSOnly(t *testing.T) {
	t.Parallel()
	unsigned := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerMark, version)
		saying("[]")(w, r)
	}
	c, _ := liar(t, unsigned)
	if _, err := c.Stats(t.Context(), "b"); err != nil {
		t.Errorf("over TLS: %v", err)
	}
	c, _ = impostor(t, unsigned)
	_, err := c.Stats(t.Context(), "b")
	wantPeerError(t, err, "peer_tls: true")
	c, _ = liar(t, sealed(newKey([]byte("the secret of another cluster")), saying("[]")))
	_, err = c.Stats(t.Context(), "b")
	wantPeerError(t, err, "signature is wrong")
}

// A recorded answer is one that an attacker on the way may have recorded.
type recorded struct {
	status int
	header http.Header
	body   []byte
}

// send sends the answer in its present form.
func (a *recorded) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

// ask returns the true answer to r.
func (r *rig) ask(req *http.Request) *recorded {
	w := httptest.NewRecorder()
	r.server.ServeHTTP(w, req)
	got := w.Result()
	defer got.Body.Close()
	return &recorded{got.StatusCode, got.Header, w.Body.Bytes()}
}

// questions lists requests that a rig's registry answers. Each ends without an error or
// with an error of the registry.
func (r *rig) questions() map[string]func(context.Context, mesh.Peer) error {
	img := r.registry.PutImage(repo, "v1", random(1, 10*kib))
	ref, layer := r.ref(img.Manifest), r.ref(img.Layers[0])
	tag := oci.Ref{Registry: ref.Registry, Repository: repo, Tag: "v1"}
	return map[string]func(context.Context, mesh.Peer) error{
		"tag":      func(ctx context.Context, b mesh.Peer) error { _, err := b.Tag(ctx, tag, nil); return err },
		"manifest": func(ctx context.Context, b mesh.Peer) error { _, err := b.Manifest(ctx, ref, mesh.Terms{}); return err },
		"tags": func(ctx context.Context, b mesh.Peer) error {
			_, _, err := b.List(ctx, oci.Question{Ref: tag.Repo()}, false, new(bytes.Buffer))
			return err
		},
		"kept": func(ctx context.Context, b mesh.Peer) error {
			_, _, err := b.List(ctx, oci.Question{Ref: tag.Repo()}, true, new(bytes.Buffer))
			return err
		},
		"last word": func(ctx context.Context, b mesh.Peer) error {
			_, err := b.LastWord(ctx, oci.Question{Ref: tag})
			return err
		},
		"referrers": func(ctx context.Context, b mesh.Peer) error {
			_, _, err := b.List(ctx, oci.Question{Ref: ref}, false, new(bytes.Buffer))
			return err
		},
		"peek":     func(ctx context.Context, b mesh.Peer) error { _, err := b.Peek(ctx, layer); return err },
		"progress": func(ctx context.Context, b mesh.Peer) error { _, err := b.Progress(ctx, layer); return err },
		"stat":     func(ctx context.Context, b mesh.Peer) error { _, _, err := b.Stat(ctx, layer); return err },
		"no tag": func(ctx context.Context, b mesh.Peer) error {
			_, err := b.Tag(ctx, oci.Ref{Registry: ref.Registry, Repository: repo, Tag: "v2"}, nil)
			return err
		},
		"open": func(ctx context.Context, b mesh.Peer) error {
			s, err := b.Open(ctx, layer, 5, mesh.Terms{})
			if err == nil {
				err = s.Body.Close()
			}
			return err
		},
	}
}

// believed reports whether err is nil or the registry's.
func believed(err error) bool {
	_, upstream := errors.AsType[*oci.Error](err)
	return err == nil || upstream
}

func TestAnAnswerIsForOneRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	for name, ask := range r.questions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var first atomic.Pointer[recorded]
			replay := func(w http.ResponseWriter, req *http.Request) {
				if first.Load() == nil {
					first.Store(r.ask(req))
				}
				first.Load().send(w)
			}
			c, b := impostor(t, replay)
			c.number.Store(numbers.Add(1 << 10))
			if err := ask(t.Context(), b); !believed(err) {
				t.Fatalf("the answer to its own request: %v", err)
			}
			wantPeerError(t, ask(t.Context(), b), "signature is wrong")
		})
	}
}

// numbers of requests that several clients of one name send to one server.
var numbers atomic.Uint64

// changes lists what an attacker on the way may do to an answer.
func changes(a *recorded) map[string]func(*recorded) {
	out := map[string]func(*recorded){
		"another status":   func(a *recorded) { a.status ^= 1 },
		"no signature":     func(a *recorded) { a.header.Del(headerAuth) },
		"two signatures":   func(a *recorded) { a.header.Add(headerAuth, a.header.Get(headerAuth)) },
		"a shorter answer": func(a *recorded) { a.resize(a.body[:len(a.body)/2]) },
		"a longer answer":  func(a *recorded) { a.resize(append(a.body, '}')) },
	}
	for name := range a.header {
		if name == "Date" || name == "Content-Length" {
			continue
		}
		out["without "+name] = func(a *recorded) { a.header[name] = nil } // nil: net/http does not guess one
		out["another "+name] = func(a *recorded) { a.header.Set(name, "1"+a.header.Get(name)) }
		out["two of "+name] = func(a *recorded) { a.header.Add(name, "1") }
	}
	for _, name := range []string{
		headerFailure, headerError, headerStale, headerSource, headerAge, headerCollapsed, headerPresence, headerBegun, headerRedirect, headerNext, headerVia,
		headerFilters, headerBody, "Oci-Peer-Newer", "Content-Range", "Retry-After",
	} {
		if a.header.Get(name) == "" {
			out["with "+name] = func(a *recorded) { a.header.Set(name, "1") }
		}
	}
	if a.header.Get(headerBody) != "" {
		out["another body"] = func(a *recorded) { a.body = bytes.Replace(a.body, []byte(`"`), []byte(`'`), 1) }
		out["another body and its sum"] = func(a *recorded) {
			a.body = bytes.Replace(a.body, []byte(`"`), []byte(`'`), 1)
			a.header.Set(headerBody, bodySum(a.body))
		}
	}
	return out
}

// resize changes the body and its length in the header.
func (a *recorded) resize(body []byte) {
	a.body = body
	a.header.Set("Content-Length", strconv.Itoa(len(body)))
}

func TestAChangedAnswerIsNotBelieved(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	tried := 0
	for name, ask := range r.questions() {
		var change atomic.Pointer[func(*recorded)]
		var last atomic.Pointer[recorded]
		c, b := impostor(t, func(w http.ResponseWriter, req *http.Request) {
			a := r.ask(req)
			last.Store(&recorded{a.status, a.header.Clone(), a.body})
			if fn := change.Load(); fn != nil {
				(*fn)(a)
			}
			a.send(w)
		})
		c.number.Store(numbers.Add(1 << 10))
		for range 2 { // the second answer is the same as the first
			if err := ask(t.Context(), b); !believed(err) {
				t.Fatalf("%s unchanged: %v", name, err)
			}
		}
		for how, fn := range changes(last.Load()) {
			if a := last.Load(); strings.HasSuffix(how, "er answer") && (len(a.body) == 0 || a.header.Get("Content-Length") == "") {
				continue // it has no body
			}
			change.Store(&fn)
			err := ask(t.Context(), b)
			if _, refused := errors.AsType[*mesh.PeerError](err); !refused || believed(err) {
				t.Errorf("%s %s is believed: %v", name, how, err)
			}
			tried++
		}
	}
	if tried < 100 {
		t.Errorf("only %d changes were tried", tried)
	}
}

func TestFieldsOfAnswersDontRunTogether(t *testing.T) {
	t.Parallel()
	k := newKey(secret)
	seen := map[string]int{}
	for i, a := range []struct {
		request string
		status  int
		header  http.Header
	}{
		{"", 200, nil},
		{"a", 200, nil},
		{"", 201, nil},
		{"2", 0, nil},
		{"", 200, http.Header{"Oci-Peer-A": {"b"}}},
		{"", 200, http.Header{"Oci-Peer-A": {"b", ""}}},
		{"", 200, http.Header{"Oci-Peer-A": {""}}},
		{"", 200, http.Header{"Oci-Peer-Ab": {""}}},
		{"", 200, http.Header{"Oci-Peer-A": {"b"}, "Oci-Peer-B": {"a"}}},
		{"", 200, http.Header{"Oci-Peer-A": {"b", "Oci-Peer-B", "1", "a"}}},
		{"", 200, http.Header{"Content-Type": {"a"}}},
		{"", 200, http.Header{"Content-Range": {"a"}}},
		{"", 200, http.Header{"Content-Type": {"a"}, "Content-Range": {"a"}}},
	} {
		seal := k.seal([]byte(a.request), a.status, a.header)
		if j, ok := seen[seal]; ok {
			t.Errorf("%d and %d have one signature", i, j)
		}
		seen[seal] = i
	}
	if one, other := k.seal(nil, 200, http.Header{"Date": {"a"}, headerAuth: {"b"}}), k.seal(nil, 200, nil); one != other {
		t.Error("headers that the client does not read are signed")
	}
	if s := good(1).statement; bytes.Equal(s.sign(key{request: k.answer}), s.sign(k)) {
		t.Error("requests and answers are signed with one key")
	}
}
