package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstream"
	"oci-proxy/transfer/upstreamtest"
)

// taken is what a way brought, as far as it is the registry's.
type taken struct {
	descriptor oci.Descriptor
	manifest   oci.Manifest
	page       oci.Page
	stream     oci.Stream
	bytes      string
	err        string
}

// take asks by one way.
var take = map[string]func(ctx context.Context, up oci.Upstream, img upstreamtest.Image, ref oci.Ref) (t taken, err error){
	"blob": func(ctx context.Context, up oci.Upstream, _ upstreamtest.Image, ref oci.Ref) (t taken, err error) {
		return streamed(up.Open(ctx, ref, 0))
	},
	"rest of a blob": func(ctx context.Context, up oci.Upstream, _ upstreamtest.Image, ref oci.Ref) (t taken, err error) {
		return streamed(up.Open(ctx, ref, 1234))
	},
	"range": func(ctx context.Context, up oci.Upstream, _ upstreamtest.Image, ref oci.Ref) (t taken, err error) {
		return streamed(up.Range(ctx, ref, oci.Span{Offset: 77, Length: 4321}))
	},
	"head of a blob": func(ctx context.Context, up oci.Upstream, _ upstreamtest.Image, ref oci.Ref) (t taken, err error) {
		t.descriptor, err = up.Stat(ctx, ref, true, nil)
		return t, err
	},
	"head of a tag": func(ctx context.Context, up oci.Upstream, _ upstreamtest.Image, ref oci.Ref) (t taken, err error) {
		ref.Digest, ref.Tag = "", "v1"
		t.descriptor, err = up.Stat(ctx, ref, false, oci.ManifestTypes)
		return t, err
	},
	"head of a manifest": func(ctx context.Context, up oci.Upstream, img upstreamtest.Image, ref oci.Ref) (t taken, err error) {
		ref.Digest = img.Manifest
		t.descriptor, err = up.Stat(ctx, ref, false, oci.ManifestTypes)
		return t, err
	},
	"manifest": func(ctx context.Context, up oci.Upstream, img upstreamtest.Image, ref oci.Ref) (t taken, err error) {
		ref.Digest = img.Manifest
		t.manifest, err = up.Manifest(ctx, ref, oci.ManifestTypes)
		return t, err
	},
	"manifest of a tag": func(ctx context.Context, up oci.Upstream, _ upstreamtest.Image, ref oci.Ref) (t taken, err error) {
		ref.Digest, ref.Tag = "", "v1"
		t.manifest, err = up.Manifest(ctx, ref, oci.ManifestTypes)
		return t, err
	},
	"tags": func(ctx context.Context, up oci.Upstream, _ upstreamtest.Image, ref oci.Ref) (t taken, err error) {
		var b bytes.Buffer
		return paged(&b)(up.Tags(ctx, ref.Repo(), "n=1", &b))
	},
	"referrers": func(ctx context.Context, up oci.Upstream, img upstreamtest.Image, ref oci.Ref) (t taken, err error) {
		var b bytes.Buffer
		ref.Digest = img.Manifest
		return paged(&b)(up.Referrers(ctx, ref, "", &b))
	},
}

// streamed reads a stream.
func streamed(s *oci.Stream, err error) (t taken, _ error) {
	if err != nil {
		return t, err
	}
	t.stream = *s
	t.stream.Body, t.stream.Relay = nil, ""
	if s.Body == nil {
		return t, nil
	}
	b, err := io.ReadAll(s.Body)
	t.bytes = string(b)
	return t, errors.Join(err, s.Body.Close())
}

// paged is a page whose bytes are in b.
func paged(b *bytes.Buffer) func(p *oci.Page, err error) (taken, error) {
	return func(p *oci.Page, err error) (t taken, _ error) {
		if err == nil {
			t.page, t.bytes = *p, b.String()
		}
		return t, err
	}
}

// said is what a failure says, but for its cause.
func said(err error) string {
	e, ok := oci.AsError(err)
	if !ok {
		return fmt.Sprint(err)
	}
	own := *e
	own.Err, own.RetryAfter = nil, own.RetryAfter.Round(time.Minute) // what is left of a pause gets less
	return fmt.Sprintf("%+v", own)
}

// Whatever a registry answers is the same by way of a member: who gave the answer, its status,
// its reason. A member that asked keeps nothing of it.
func TestARelayedAnswerIsTheRegistrys(t *testing.T) {
	t.Parallel()
	faults := map[string]upstreamtest.Fault{
		"well":                 {Match: upstreamtest.Match{PathPart: "nothing like this"}},
		"firewall":             upstreamtest.FirewallPage(),
		"silent firewall":      upstreamtest.FirewallSilent(),
		"portal":               upstreamtest.PortalPage(),
		"portal's status":      upstreamtest.PortalStatus(),
		"balancer":             upstreamtest.BalancerPage(),
		"Quay refuses":         upstreamtest.QuayError(http.StatusForbidden, "DENIED"),
		"Quay has nothing":     upstreamtest.QuayError(http.StatusNotFound, "MANIFEST_UNKNOWN"),
		"too many":             {Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"77"}}},
		"storage refuses":      upstreamtest.S3Expired(),
		"storage has nothing":  upstreamtest.S3Missing(),
		"a country is refused": upstreamtest.CloudFrontBlocked(),
		"no length":            {NoLength: true},
		"no ranges":            {IgnoreRange: true},
		"no digest":            {NoDigest: true},
		"compressed":           {Gzip: true},
	}
	if testing.Short() {
		for _, slow := range []string{"balancer", "too many"} {
			delete(faults, slow) // it is tried again
		}
	}
	for name, fault := range faults {
		for how, options := range map[string][]upstreamtest.Option{"": nil, "redirected": {upstreamtest.Redirect()}} {
			t.Run(strings.TrimSpace(name+" "+how), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, setup{out: true, options: options})
				img := r.registry.PutImage(repo, "v1", random(1, 100_000))
				r.registry.PutImage(repo, "v2", random(2, 10))
				ref := r.ref(img.Layers[0])
				r.registry.Fault(fault)
				for what, ask := range take {
					want, wrong := ask(t.Context(), r.upstream, img, ref)
					got, err := ask(t.Context(), r.Relayer("b").Relay(), img, ref)
					if _, ours := oci.AsError(wrong); wrong != nil && !ours {
						if err == nil {
							t.Errorf("%s broke off, and not by way of a member", what)
						}
						continue
					}
					if wrong != nil {
						want = taken{err: said(wrong)}
					}
					if err != nil {
						got = taken{err: said(err)}
					}
					if want.stream.Coding != "" && what == "range" {
						want.bytes = want.bytes[:len(got.bytes)] // nobody reads more of it
					}
					if a, b := fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got); a != b && !sameManifest(want, got) {
						t.Errorf("%s:\n%.600s\nby way of a member:\n%.600s", what, a, b)
					}
				}
				if _, err := r.b.Manifest(t.Context(), r.ref(img.Manifest), mesh.Terms{Held: true}); oci.KindOf(err) != oci.NotFound {
					t.Errorf("the member has kept the manifest: %v", err)
				}
				if at, err := r.b.Progress(t.Context(), ref); err != nil || at.Held || at.Offset != 0 {
					t.Errorf("the member has kept the blob: %+v, %v", at, err)
				}
			})
		}
	}
}

// sameManifest reports whether two HEADs brought the same manifest.
func sameManifest(a, b taken) bool {
	if a.descriptor.Manifest == nil || b.descriptor.Manifest == nil {
		return false
	}
	return fmt.Sprintf("%+v", *a.descriptor.Manifest) == fmt.Sprintf("%+v", *b.descriptor.Manifest)
}

// A registry with a login: what it refuses is its own word, whoever heard it first.
func TestARelayedRefusalIsNotHearsay(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{out: true, options: []upstreamtest.Option{upstreamtest.Bearer(upstreamtest.BearerAuth{User: "u", Password: "p"})}})
	img := r.registry.PutImage(repo, "v1", random(1, 1000))
	_, want := r.upstream.Stat(t.Context(), r.ref(img.Layers[0]), true, nil)
	_, err := r.Relayer("b").Relay().Stat(t.Context(), r.ref(img.Layers[0]), true, nil)
	if e := wantError(t, err, oci.Denied); !e.Authoritative() || e.Relayed || said(want) != said(err) {
		t.Errorf("%+v, want %+v", e, want)
	}
}

// A node relays only what it may ask, and only if it lends its way out.
func TestWhatIsNotRelayed(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]setup{
		"none":              {},
		"not that registry": {out: true, relays: func(string) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, s)
			img := r.registry.PutImage(repo, "v1", random(1, 1000))
			for what, ask := range take {
				_, err := ask(t.Context(), r.Relayer("b").Relay(), img, r.ref(img.Layers[0]))
				if _, ok := errors.AsType[*mesh.PeerError](err); !ok {
					t.Errorf("%s: %v", what, err)
				}
			}
			if n := len(r.registry.Requests()); n != 0 {
				t.Errorf("the registry was asked %d times", n)
			}
			if !r.Healthy("b") {
				t.Error("the member counts as sick")
			}
		})
	}
}

// heedful notes by which questions mirrors may answer.
type heedful struct {
	oci.Upstream
	may atomic.Int64
}

// heed notes a question.
func (h *heedful) heed(ctx context.Context) {
	if oci.Mirrors(ctx) {
		h.may.Add(1)
	}
}

func (h *heedful) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	h.heed(ctx)
	s, err := h.Upstream.Open(ctx, ref, offset)
	if err == nil && oci.Mirrors(ctx) {
		s.By = oci.Mirror
	}
	return s, err
}

func (h *heedful) Range(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	h.heed(ctx)
	return h.Upstream.Range(ctx, ref, span)
}

func (h *heedful) Stat(ctx context.Context, ref oci.Ref, blob bool, accept []string) (oci.Descriptor, error) {
	h.heed(ctx)
	return h.Upstream.Stat(ctx, ref, blob, accept)
}

func (h *heedful) Manifest(ctx context.Context, ref oci.Ref, accept []string) (oci.Manifest, error) {
	h.heed(ctx)
	return h.Upstream.Manifest(ctx, ref, accept)
}

func (h *heedful) Tags(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	h.heed(ctx)
	return h.Upstream.Tags(ctx, ref, query, to)
}

func (h *heedful) Referrers(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	h.heed(ctx)
	return h.Upstream.Referrers(ctx, ref, query, to)
}

// Mirrors of the member answer if they may at the node that asks, and only then. Who answered
// is told.
func TestMirrorsAnswerByWayOfAMember(t *testing.T) {
	t.Parallel()
	registry := upstreamtest.New(t)
	client, err := upstream.New([]upstream.Registry{{Host: registry.Host(), Configured: true, Insecure: true, FollowRedirects: true}}, upstream.Registry{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	h := &heedful{Upstream: client}
	r := newRig(t, setup{out: true, upstream: h})
	img := registry.PutImage(repo, "v1", random(1, 10_000))
	ref := oci.Ref{Registry: registry.Host(), Repository: repo, Digest: img.Layers[0]}
	for what, ask := range take {
		for may, ctx := range map[bool]context.Context{false: t.Context(), true: oci.WithMirrors(t.Context())} {
			h.may.Store(0)
			got, err := ask(ctx, r.Relayer("b").Relay(), img, ref)
			if err != nil || (h.may.Load() > 0) != may {
				t.Errorf("%s, they may: %v; asked as if %v: %v", what, may, h.may.Load() > 0, err)
			}
			if by := got.stream.By; what == "blob" && (by == oci.Mirror) != may {
				t.Errorf("mirrors may answer: %v; the %v did", may, by)
			}
		}
	}
}

// A blob that breaks off on its way is not taken for a whole one, and the member is not blamed.
// What came has been passed on before: the rest is asked for by Range.
func TestARelayedBlobThatBreaksOff(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]upstreamtest.Fault{
		"cut":                 {CutAfter: 70_001, Times: 1},
		"cut, without length": {CutAfter: 70_001, NoLength: true, Times: 1},
		"reset":               {CutAfter: 70_001, CutReset: true, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{out: true})
			content := random(1, 200_000)
			d := r.registry.PutBlob(repo, content)
			r.registry.Fault(f)
			up := r.Relayer("b").Relay()
			var got []byte
			for try := range 3 {
				s, err := up.Open(t.Context(), r.ref(d), int64(len(got)))
				if err != nil {
					t.Fatal(err)
				}
				if s.Offset != int64(len(got)) || s.Relay != "node-b" || s.By != oci.Registry {
					t.Fatalf("%+v", s)
				}
				b, err := io.ReadAll(s.Body)
				_ = s.Body.Close()
				got = append(got, b...)
				if try == 0 {
					wantPeerError(t, err, "broke off")
				}
				if err == nil {
					break
				}
			}
			if !bytes.Equal(got, content) || !r.Healthy("b") {
				t.Errorf("%d bytes of %d; the member counts as well: %v", len(got), len(content), r.Healthy("b"))
			}
		})
	}
}

// What has come is passed on, also if no more comes for a while.
func TestARelayedBlobIsPassedOnAsItComes(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{out: true})
	content := random(1, 200_000)
	d := r.registry.PutBlob(repo, content)
	goOn := make(chan struct{})
	r.registry.Fault(upstreamtest.Fault{Stall: true, StallAfter: 1001, StallUntil: goOn, Times: 1})
	s, err := r.Relayer("b").Relay().Open(t.Context(), r.ref(d), 0)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 1001)
	if _, err := io.ReadFull(s.Body, first); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	rest, err := io.ReadAll(s.Body)
	if err != nil || s.Body.Close() != nil || !bytes.Equal(slices.Concat(first, rest), content) {
		t.Error(err)
	}
}

// The one that asked goes away: the registry is left alone.
func TestARelayEndsWithItsAsker(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{out: true})
	d := r.registry.PutBlob(repo, random(1, 200_000))
	r.registry.Fault(upstreamtest.Fault{Stall: true, StallAfter: 1})
	ctx, cancel := context.WithCancel(t.Context())
	s, err := r.Relayer("b").Relay().Open(ctx, r.ref(d), 0)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = s.Body.Close()
	testkit.Await(t, "the member has ended its request", func() bool { return len(r.server.table["GET relay-blobs/"].slots) == 0 })
}

// Large lists pass, some at a time; they share the member's memory.
func TestRelayedListsShareMemory(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	r := newRig(t, setup{out: true})
	r.registry.PutBlob(repo, []byte("x"))
	big := `{"name":"` + repo + `","tags":["` + strings.Repeat("a", 20*mib) + `"]}`
	r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "tags/list"}, Status: http.StatusOK, Body: big, Header: http.Header{"Content-Type": {"application/json"}}})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var b bytes.Buffer
			if _, err := r.Relayer("b").Relay().Tags(t.Context(), r.ref("").Repo(), "", &b); err != nil || b.String() != big {
				t.Errorf("%d bytes: %v", b.Len(), err)
			}
		})
	}
	wg.Wait()
}

// A member that makes up a manifest, or says what can't be, is found out.
func TestRelayedLies(t *testing.T) {
	t.Parallel()
	good := `{"digest":"` + somewhere.Digest.String() + `","size":1,"by":"registry"}`
	for name, header := range map[string]string{
		"nothing":          "",
		"no JSON":          "{",
		"another digest":   `{"digest":"` + digest.FromString("y").String() + `","size":1}`,
		"no digest":        `{"size":1}`,
		"an odd digest":    `{"digest":"md5:x","size":1}`,
		"an odd size":      `{"digest":"` + somewhere.Digest.String() + `","size":-2}`,
		"an odd offset":    `{"offset":9,"size":1}`,
		"an odd redirect":  `{"redirect":"javascript:alert(1)","size":1}`,
		"wrong bytes":      good,
		"an odd type":      `{"digest":"` + somewhere.Digest.String() + `","size":1,"type":"a\u0000b"}`,
		"too long a type":  `{"digest":"` + somewhere.Digest.String() + `","size":1,"type":"` + strings.Repeat("a", maxWord+1) + `"}`,
		"a type with Umla": `{"digest":"` + somewhere.Digest.String() + `","size":1,"type":"ü"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := liar(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set(headerMark, version)
				w.Header().Set(headerTold, header)
				_, _ = io.WriteString(w, "not x")
			})
			if _, err := c.Relayer("b").Relay().Manifest(t.Context(), somewhere, nil); err == nil {
				t.Error("the manifest is believed")
			} else {
				wantPeerError(t, err, "")
			}
			tag := oci.Ref{Registry: somewhere.Registry, Repository: repo, Tag: "v1"}
			if _, err := c.Relayer("b").Relay().Stat(t.Context(), tag, false, nil); err == nil {
				t.Error("the tag is believed")
			}
			if _, err := c.Relayer("b").Relay().Range(t.Context(), somewhere, oci.Span{Offset: 3, Length: 5}); err == nil {
				t.Error("the range is believed")
			}
		})
	}
}

// Each answer about a registry tells how the way there is.
func TestAnswersTellOfTheWay(t *testing.T) {
	t.Parallel()
	way := mesh.Way{State: mesh.WayUp, Latency: 123 * time.Millisecond, Rate: 45_678_901}
	r := newRig(t, setup{way: func(string) mesh.Way { return way }})
	var heard []string
	r.hear = func(id, registry string, w mesh.Way) { heard = append(heard, fmt.Sprint(id, " ", registry, " ", w)) }
	d := r.registry.PutBlob(repo, []byte("x"))
	if _, err := r.b.Peek(t.Context(), r.ref(d)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.b.Stat(t.Context(), r.ref(digest.FromString("none"))); err == nil {
		t.Error("it has what it has not")
	}
	if _, err := r.Stats(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint("b ", r.registry.Host(), " ", way)
	if len(heard) != 2 || heard[0] != want || heard[1] != want {
		t.Errorf("heard %q, want %q twice", heard, want)
	}
}

func TestWaysAreToldAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, w := range []mesh.Way{{}, {State: mesh.WayUp}, {State: mesh.WayDown}, {State: mesh.WayUp, Latency: time.Second, Rate: 1}} {
		if got := parseWay(encodeWay(w)); got != w {
			t.Errorf("%+v became %+v", w, got)
		}
	}
	for _, s := range []string{"up", "up 1", "up -1 1", "up 1 -1", "up 1 1 1", "up x 1", "sideways", "up 99999999 1", "up 1 99999999999999999999", "down 1", "UP 1 1"} {
		if got := parseWay(s); got != (mesh.Way{}) {
			t.Errorf("%q became %+v", s, got)
		}
	}
}

// Whatever a member's header says, what is read of it can be used.
func FuzzTold(f *testing.F) {
	f.Add(`{"digest":"`+somewhere.Digest.String()+`","size":7,"offset":3,"by":"storage","host":"cdn.example.com","redirect":"https://x.example/y"}`, "up 12 34")
	f.Add(`{"size":-1}`, "down")
	f.Fuzz(func(t *testing.T, header, way string) {
		got, err := readTold(http.Header{headerTold: {header}})
		if err != nil {
			return
		}
		if got.Size < -1 || got.Offset < 0 || len(got.Host) > maxWord || len(got.Type) > maxWord || got.by() > oci.Middlebox || got.Redirect != "" && !isLocation(got.Redirect) {
			t.Errorf("%q became %+v", header, got)
		}
		if w := parseWay(way); w.Rate < 0 || w.Latency < 0 || w.Latency > maxLatency || parseWay(encodeWay(w)) != w {
			t.Errorf("%q became %+v", way, w)
		}
	})
}
