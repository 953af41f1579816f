package mirrors

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// Whatever is wrong with a mirror, the blob comes, and the next one does not wait for it.
func TestAMirrorThatFailsIsPassedOver(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		mirror host
		first  time.Duration // that the first pull may take
		told   string
	}{
		"dead":               {host{fails: refused}, 0, "connection refused"},
		"in trouble":         {host{fails: trouble}, 0, "the server reported an error"},
		"hanging":            {host{hangs: true}, newPatience, "no answer in time"},
		"very slow to begin": {host{delay: time.Minute}, newPatience, "no answer in time"},
		"limited":            {host{fails: limited}, 0, "too many requests"},
		"redirects":          {host{hands: true}, 0, errHandsOver.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(r *rig) {
				r.be(one, test.mirror)
				r.be(two, host{fails: absent})
				r.wantPull("a/b", test.first, own)
				r.wantPull("c/d", 0, own)
				if !r.log.Has("mirror passed over") || !r.log.Has("mirror="+one) || !r.log.Has(test.told) {
					t.Errorf("the log says\n%s", r.log)
				}
				places := r.Places(own)
				if len(places) != 3 || places[0].Well || !strings.Contains(places[0].Wrong, test.told) || !places[2].Well {
					t.Errorf("the places are %+v", places)
				}
			})
		})
	}
}

// A mirror that answers again is used again, without a pull that pays for finding out.
func TestAMirrorThatIsBackIsUsedAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fails *oci.Error
		rest  time.Duration
	}{
		"dead":      {refused, firstRest},
		"limited":   {limited, time.Minute},
		"for a day": {&oci.Error{Kind: oci.Limited, By: oci.Registry, Status: 429, RetryAfter: 24 * time.Hour}, longestAsked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(r *rig) {
				r.be(one, host{fails: test.fails})
				r.be(two, host{fails: absent})
				r.be(own, host{delay: 100 * time.Millisecond, rate: 10 * mib})
				r.wantPull("a/b", time.Second, own)
				r.took()
				time.Sleep(test.rest - time.Second) // in the bubble
				r.be(one, host{rate: 50 * mib})
				r.wantPull("c/d", time.Second, own)
				if asked := r.took(); slices.ContainsFunc(asked, func(s string) bool { return strings.HasSuffix(s, one) }) {
					t.Errorf("it was asked within its rest: %q", asked)
				}
				time.Sleep(2 * time.Second) // in the bubble
				r.wantPull("e/f", time.Second, own)
				time.Sleep(time.Second) // in the bubble: the probe ends
				r.wantPull("g/h", time.Second, one)
			})
		})
	}
}

// Wrong bytes are not asked for again where they came from, and nowhere else is.
func TestAMirrorThatLiesIsPassedOver(t *testing.T) {
	t.Parallel()
	inBubble(t, func(r *rig) {
		r.be(one, host{lies: true})
		r.be(two, host{fails: absent})
		r.wantPull("a/b", 0, one, own)
		for range 3 {
			r.wantPull("a/b", 0, own)
		}
		r.wantPull("c/d", 0, own)
		if places := r.Places(own); places[0].Well || !strings.Contains(places[0].Wrong, "digest") {
			t.Errorf("the places are %+v", places)
		}
		if r.log.Count("mirror sent wrong bytes") != 1 {
			t.Errorf("the log says\n%s", r.log)
		}
	})
	inBubble(t, func(r *rig) { // a manifest
		r.be(one, host{lies: true})
		m, err := r.Manifest(oci.WithMirrors(r.t.Context()), r.blob("a/b"), nil)
		if err != nil || m.By != oci.Mirror {
			t.Errorf("from %v, %v", m.By, err)
		}
		if asked := r.took(); !slices.Equal(asked[:2], []string{"GET " + one, "GET " + own}) && !slices.Equal(asked[:2], []string{"GET " + one, "GET " + two}) {
			t.Errorf("asked %q", asked)
		}
	})
	inBubble(t, func(r *rig) { // and the registry is down: the other mirror is asked, the liar is not
		r.be(one, host{lies: true})
		r.be(own, host{fails: refused})
		r.wantPull("a/b", 0, one, two)
		r.be(two, host{fails: absent})
		r.took()
		if _, err := r.pull(r.blob("a/b")); oci.KindOf(err) != oci.Unavailable {
			t.Errorf("got %v", err)
		}
		if asked := r.took(); slices.Contains(asked, "GET "+one) {
			t.Errorf("the liar was asked: %q", asked)
		}
	})
}

// A part of what came out wrong proves nothing: the host is passed over for that digest alone.
func TestAPartOfWhatIsWrongIsHeldAgainstNobodyElse(t *testing.T) {
	t.Parallel()
	inBubble(t, func(r *rig) {
		s, err := r.Open(oci.WithMirrors(r.t.Context()), r.blob("a/b"), mib)
		if err != nil {
			t.Fatal(err)
		}
		s.Wrong(false)
		_ = s.Body.Close()
		if places := r.Places(own); !places[0].Well {
			t.Errorf("the places are %+v", places)
		}
		r.wantPull("a/b", 0, own)
	})
}

// That a mirror has nothing is not the registry's word, and neither is that it refuses.
func TestAMirrorDoesNotSpeakForTheRegistry(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]*oci.Error{"404": absent, "403": forbidden} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(r *rig) {
				r.be(one, host{fails: says})
				r.be(two, host{fails: says})
				r.wantPull("a/b", 0, own)
				r.took()
				r.wantPull("a/b", 0, own)
				if asked := r.took(); asked[0] != "GET "+own {
					t.Errorf("a mirror without the repository was asked first: %q", asked)
				}
				if places := r.Places(own); !places[0].Well || !places[1].Well {
					t.Errorf("the places are %+v", places)
				}
				r.be(own, host{fails: trouble}) // what it is asked for now is another thing
				_, err := r.pull(r.blob("a/b"))
				e, ok := oci.AsError(err)
				if !ok || e.Registry != own || e.Host != own || e.Kind != oci.Unavailable || e.Status != 503 || !strings.Contains(e.Error(), one+": "+says.Reason) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// What the registry says is the last word, for mirrors that were not asked yet as well.
func TestTheRegistrysWordIsFinal(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]*oci.Error{"404": absent, "403": forbidden} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(r *rig) {
				r.be(one, host{fails: refused})
				r.be(own, host{fails: says})
				r.be(two, host{fails: refused})
				_, err := r.pull(r.blob("a/b"))
				if e, ok := oci.AsError(err); !ok || e.Kind != says.Kind || !e.Authoritative() || e.Host != own {
					t.Errorf("got %v", err)
				}
				r.be(two, host{})
				r.took()
				if _, err := r.tag(); oci.KindOf(err) != says.Kind {
					t.Errorf("got %v", err)
				}
				if asked := r.took(); !slices.Equal(asked, []string{"HEAD " + own}) {
					t.Errorf("asked %q", asked)
				}
			})
		})
	}
}

// With the registry down, what a digest names goes on, and what nobody can check comes from
// mirrors that are trusted for it.
func TestTheRegistryIsDown(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]host{"dead": {fails: refused}, "in trouble": {fails: trouble}, "hanging": {hangs: true}, "limited": {fails: limited}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(r *rig) {
				r.be(own, says)
				r.wantPull("a/b", 0, one)
				if d, err := r.tag(); err != nil || d.By != oci.Mirror || d.Size < 0 {
					t.Errorf("got %+v, %v", d, err)
				}
				list := &page{}
				if _, err := r.Tags(oci.WithMirrors(r.t.Context()), oci.Ref{Registry: own, Repository: "a/b"}, "", list); err != nil || list.String() != two {
					t.Errorf("the list came from %q, %v", list.String(), err)
				}
				r.be(two, host{fails: refused})
				r.took()
				_, err := r.tag()
				if e, ok := oci.AsError(err); !ok || e.Registry != own || !e.Passing() {
					t.Errorf("got %v", err)
				}
				if asked := r.took(); slices.ContainsFunc(asked, func(s string) bool { return strings.HasSuffix(s, one) }) {
					t.Errorf("a mirror that is not trusted was asked: %q", asked)
				}
			})
		})
	}
}

// The registry is asked for tags again as soon as it answers a probe.
func TestTheRegistryIsBack(t *testing.T) {
	t.Parallel()
	inBubble(t, func(r *rig) {
		r.be(own, host{fails: refused})
		for range 3 {
			if d, err := r.tag(); err != nil || d.By != oci.Mirror {
				t.Fatalf("got %+v, %v", d, err)
			}
		}
		r.be(own, host{})
		time.Sleep(firstRest + time.Second) // in the bubble
		if _, err := r.tag(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if d, err := r.tag(); err != nil || d.By != oci.Registry {
			t.Errorf("got %+v, %v", d, err)
		}
	})
}

// Where nothing answers, the error is the registry's, in time, and says what became of mirrors.
func TestAllAreDown(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		mirrors, registry host
		kind              oci.Kind
	}{
		"dead":                 {host{fails: refused}, host{fails: refused}, oci.Unavailable},
		"hanging":              {host{hangs: true}, host{hangs: true}, oci.Timeout},
		"hanging mirrors":      {host{hangs: true}, host{fails: trouble}, oci.Unavailable},
		"a hanging registry":   {host{fails: trouble}, host{hangs: true}, oci.Timeout},
		"limited":              {host{fails: limited}, host{fails: limited}, oci.Limited},
		"nobody has it":        {host{fails: absent}, host{fails: absent}, oci.NotFound},
		"the registry has not": {host{hangs: true}, host{fails: absent}, oci.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(r *rig) {
				r.be(one, test.mirrors)
				r.be(two, test.mirrors)
				r.be(own, test.registry)
				began := time.Now()
				_, err := r.Open(oci.WithMirrors(r.t.Context()), r.blob("a/b"), 0)
				e, ok := oci.AsError(err)
				if !ok || e.Kind != test.kind || e.Registry != own || e.Host != own {
					t.Fatalf("got %v", err)
				}
				if took := time.Since(began); took > within {
					t.Errorf("it took %v", took)
				}
				if test.kind != oci.NotFound && !strings.Contains(err.Error(), one) {
					t.Errorf("the error says nothing of the mirrors: %v", err)
				}
			})
		})
	}
}

// Who is slow to begin is waited for if nobody else answers.
func TestWhoIsSlowIsWaitedForInTheEnd(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		mirrors, registry host
		from              []string
	}{
		"the registry": {host{fails: refused}, host{delay: 15 * time.Second}, []string{own}},
		"a mirror":     {host{delay: 8 * time.Second}, host{fails: refused}, []string{one}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(r *rig) {
				r.be(one, test.mirrors)
				r.be(two, host{fails: absent})
				r.be(own, test.registry)
				r.wantPull("a/b", 30*time.Second, test.from...)
			})
		})
	}
}

// The fastest place is asked first, once all are measured; that costs a MiB each.
func TestTheFastestIsAskedFirst(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		one, two, own host
		want          string
	}{
		"by throughput":          {host{rate: mib}, host{rate: 20 * mib}, host{rate: 4 * mib}, two},
		"the registry":           {host{rate: mib}, host{rate: 2 * mib}, host{rate: 30 * mib}, own},
		"by the time to begin":   {host{delay: time.Second}, host{delay: 900 * time.Millisecond}, host{delay: 20 * time.Millisecond}, own},
		"the first, if all same": {host{rate: 9 * mib}, host{rate: 3 * mib}, host{rate: 3 * mib}, one},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(r *rig) {
				r.be(one, test.one)
				r.be(two, test.two)
				r.be(own, test.own)
				for range 4 {
					if _, err := r.pull(r.blob("a/b")); err != nil {
						t.Fatal(err)
					}
					time.Sleep(3 * time.Second) // in the bubble: probes end
				}
				ranges := 0
				for _, asked := range r.took() {
					if strings.HasPrefix(asked, "RANGE") {
						ranges++
					}
				}
				if ranges > 3 {
					t.Errorf("%d probes", ranges)
				}
				r.wantPull("a/b", 10*time.Second, test.want)
			})
		})
	}
}

// Small answers go by how long a place takes to begin.
func TestManifestsComeFromWhoAnswersFirst(t *testing.T) {
	t.Parallel()
	inBubble(t, func(r *rig) {
		r.be(one, host{delay: 400 * time.Millisecond, rate: 100 * mib})
		r.be(two, host{delay: 30 * time.Millisecond, rate: mib})
		r.be(own, host{delay: 900 * time.Millisecond})
		ctx := oci.WithMirrors(r.t.Context())
		for range 4 {
			if _, err := r.Manifest(ctx, r.blob("a/b"), nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // in the bubble: probes end
		}
		r.took()
		if _, err := r.Manifest(ctx, r.blob("a/b"), nil); err != nil {
			t.Fatal(err)
		}
		if asked := r.took(); asked[0] != "GET "+two {
			t.Errorf("asked %q", asked)
		}
	})
}

// A mirror that crawls or stands still in mid-body is left for a place that is known to be
// better, and kept where there is none.
func TestASlowStreamIsLeft(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		mirror host
		within time.Duration
	}{
		"it crawls":       {host{rate: 20 << 10}, 10 * time.Second},
		"it stands still": {host{rate: mib, still: mib}, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(r *rig) {
				r.be(one, test.mirror)
				r.be(two, host{fails: absent})
				r.be(own, host{rate: 10 * mib})
				r.wantPull("a/b", test.within, one, own)
				r.wantPull("c/d", time.Second, own)
			})
		})
	}
	t.Run("all crawl", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(r *rig) {
			for _, name := range []string{one, two, own} {
				r.be(name, host{rate: 200 << 10})
			}
			r.wantPull("a/b", time.Minute, one)
		})
	})
}

// Without the caller's word only the registry is asked.
func TestMirrorsAreAskedOnlyIfTheyMayAnswer(t *testing.T) {
	t.Parallel()
	inBubble(t, func(r *rig) {
		ctx, ref := r.t.Context(), r.blob("a/b")
		s, err := r.Open(ctx, ref, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Body.Close()
		if s, err = r.Range(ctx, ref, oci.Span{Length: 10}); err != nil {
			t.Fatal(err)
		}
		_ = s.Body.Close()
		_, statErr := r.Stat(ctx, ref, true, nil)
		_, manifestErr := r.Manifest(ctx, ref, nil)
		_, tagsErr := r.Tags(ctx, ref, "", &page{})
		_, refErr := r.Referrers(ctx, ref, "", &page{})
		if err := errors.Join(statErr, manifestErr, tagsErr, refErr); err != nil {
			t.Error(err)
		}
		other := ref
		other.Registry = "other.example.com"
		if s, err = r.Open(oci.WithMirrors(ctx), other, 0); err != nil || s.Host != other.Registry {
			t.Errorf("a registry without mirrors: %v", err)
		}
		_ = s.Body.Close()
		want := []string{"GET " + own, "RANGE " + own, "HEAD " + own, "GET " + own, "LIST " + own, "LIST " + own, "GET other.example.com"}
		if asked := r.took(); !slices.Equal(asked, want) {
			t.Errorf("asked %q, want %q", asked, want)
		}
	})
}

// What can't be checked is not taken from mirrors that are not trusted for it.
func TestWhatNobodyCanCheck(t *testing.T) {
	t.Parallel()
	inBubble(t, func(r *rig) {
		ctx, ref := oci.WithMirrors(r.t.Context()), r.blob("a/b")
		r.be(own, host{fails: refused})
		s, err := r.Range(ctx, ref, oci.Span{Offset: 5, Length: 10})
		if err != nil || s.Host != two {
			t.Fatalf("a range came from %+v, %v", s, err)
		}
		_ = s.Body.Close()
		if d, err := r.Stat(ctx, ref, true, nil); err != nil || d.By != oci.Mirror || d.Size != int64(len(r.content)) {
			t.Errorf("trusted: %+v, %v", d, err)
		}
		r.be(two, host{fails: absent})
		if d, err := r.Stat(ctx, ref, true, nil); err != nil || d.By != oci.Mirror || d.Size != -1 {
			t.Errorf("not trusted: %+v, %v", d, err)
		}
		if d, err := r.Stat(ctx, ref, false, nil); err != nil || d.Manifest == nil || d.By != oci.Mirror || d.Manifest.By != oci.Mirror {
			t.Errorf("a manifest: %+v, %v", d, err)
		}
		r.be(one, host{lies: true})
		if d, err := r.Stat(ctx, ref, false, nil); oci.KindOf(err) != oci.Unavailable {
			t.Errorf("a manifest that does not match: %+v, %v", d, err)
		}
	})
}

// What fails in the caller's hands is no place's fault, and who leaves waits for nothing.
func TestTheCallersOwnFailures(t *testing.T) {
	t.Parallel()
	inBubble(t, func(r *rig) {
		full := errors.New("disk full")
		if _, err := r.Tags(oci.WithMirrors(r.t.Context()), oci.Ref{Registry: own, Repository: "a/b"}, "", &page{fails: full}); !errors.Is(err, full) {
			t.Errorf("got %v", err)
		}
		r.be(one, host{hangs: true})
		ctx, cancel := context.WithCancel(oci.WithMirrors(r.t.Context()))
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		_, err := r.Open(ctx, r.blob("a/b"), 0)
		if e, ok := oci.AsError(err); !ok || e.Registry != own || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		for _, p := range r.Places(own) {
			if !p.Well {
				t.Errorf("%s is blamed", p.Host)
			}
		}
	})
}

// A refuser refuses just when its asker goes.
type refuser struct {
	oci.Upstream
	cancel func()
}

func (r refuser) Manifest(_ context.Context, ref oci.Ref, _ []string) (oci.Manifest, error) {
	r.cancel()
	return oci.Manifest{}, &oci.Error{Kind: oci.Denied, Registry: ref.Registry, Host: ref.Registry, By: oci.Registry, Status: 403}
}

// A mirror's refusal in the moment in which the asker goes is not taken for the registry's,
// which would take back what that vouched for.
func TestAMirrorRefusesNothingInTheRegistrysName(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(oci.WithMirrors(t.Context()))
	m := New(Config{Upstream: refuser{cancel: cancel}, Of: map[string][]Mirror{own: {{Host: one}}}, Log: slog.New(slog.DiscardHandler)})
	defer m.Close()
	ref := oci.Ref{Registry: own, Repository: "a/b", Digest: digest.FromString("x")}
	_, err := m.Manifest(ctx, ref, nil)
	if e, ok := oci.AsError(err); !ok || e.Authoritative() || e.Kind != oci.Timeout || e.Registry != own || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Closing ends the probes.
func TestCloseEndsProbes(t *testing.T) {
	t.Parallel()
	inBubble(t, func(r *rig) {
		r.be(own, host{hangs: true})
		r.be(two, host{hangs: true})
		r.wantPull("a/b", 0, one)
		r.Close()
		synctest.Wait()
		r.took()
		r.wantPull("a/b", 0, one)
		if asked := r.took(); !slices.Equal(asked, []string{"GET " + one}) {
			t.Errorf("asked %q after the end", asked)
		}
	})
}
