package lanes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/wait"
)

func TestBlobComesWholeAndInOrder(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1, firstLeg - 1, firstLeg, firstLeg + 1, firstLeg + blockSize, 3<<20 + 17, 8 << 20} {
		for _, connections := range []int{2, 4, 64} {
			for _, offset := range []int64{0, size / 2, size - 1} {
				t.Run(fmt.Sprint(size, connections, offset), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						l := newLink(size)
						l.delay, l.rate = 5*time.Millisecond, every(1e7)
						all(t, over(t, l, connections), l, offset)
						if l.sent.Load() != size-offset || l.plainly.Load() != 0 {
							t.Errorf("%d bytes were sent for %d", l.sent.Load(), size-offset)
						}
						if n := l.most.Load(); n > int64(connections) {
							t.Errorf("%d connections at a time", n)
						}
					})
				})
			}
		}
	}
}

// took returns how long the link's blob takes over so many connections.
func took(t *testing.T, l *link, connections int) time.Duration {
	t.Helper()
	start := time.Now()
	all(t, over(t, l, connections), l, 0)
	return time.Since(start)
}

// What each connection gives is bounded: four give nearly four times as much, whatever
// the way to the registry is like.
func TestFourConnectionsAreNearlyFourTimesAsFast(t *testing.T) {
	testkit.SkipShort(t)
	t.Parallel()
	for _, c := range []struct {
		size  int64
		rate  float64
		delay time.Duration
		least float64
	}{
		{100 << 20, 1e7, time.Millisecond, 3.8},
		{100 << 20, 1e7, 40 * time.Millisecond, 3.5},
		{64 << 20, 1e6, 300 * time.Millisecond, 3.5},
		{16 << 20, 1e5, 200 * time.Millisecond, 3.8},
		{100 << 20, 3e7, 20 * time.Millisecond, 3.3},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLink(c.size)
				l.delay, l.rate = c.delay, every(c.rate)
				four, one := took(t, l, 4), took(t, l, 1)
				t.Logf("one %v, four %v: %.2f", one, four, one.Seconds()/four.Seconds())
				if ratio := one.Seconds() / four.Seconds(); ratio < c.least {
					t.Errorf("%.2f times as fast", ratio)
				}
			})
		})
	}
}

func TestFirstByteComesAsEarlyAsOverOneConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLink(8 << 20)
		l.delay, l.rate = 200*time.Millisecond, every(1e6)
		first := func(connections int) time.Duration {
			start := time.Now()
			s, err := over(t, l, connections).Open(t.Context(), l.ref(), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Body.Close()
			if _, err := s.Body.Read(make([]byte, 32<<10)); err != nil {
				t.Error(err)
			}
			return time.Since(start)
		}
		if one, four := first(1), first(4); one != four {
			t.Errorf("after %v over one, after %v over four", one, four)
		}
	})
}

// If nothing helps, the reader gets all before the gap, and then the error.
func TestAnErrorComesAfterTheBytesBeforeIt(t *testing.T) {
	t.Parallel()
	gone := &oci.Error{Kind: oci.Unavailable, Registry: reg, Host: reg, Reason: "gone"}
	denied := &oci.Error{Kind: oci.Denied, Registry: reg, Host: reg, Reason: "no longer"}
	for _, c := range []struct {
		err error
		cut int64
		min int
	}{{gone, 100 << 10, 4}, {denied, 100 << 10, 2}, {gone, 0, 4}} {
		synctest.Test(t, func(t *testing.T) {
			l := newLink(8 << 20)
			l.rate, l.cutAt = every(1e7), nth(c.cut, 1)
			l.refuse = func(n int) error {
				if n > 1 {
					return c.err
				}
				return nil
			}
			s, err := over(t, l, 4).Open(t.Context(), l.ref(), 0)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(s.Body)
			want := int64(firstLeg)
			if c.cut > 0 {
				want = (c.cut + 32<<10 - 1) / (32 << 10) * (32 << 10)
			}
			if !errors.Is(err, c.err) || int64(len(got)) != want || !bytes.Equal(got, l.content[:len(got)]) {
				t.Errorf("%d bytes, want %d, then %v", len(got), want, err)
			}
			if n := l.requests.Load(); n < int64(c.min) || n > 30 {
				t.Errorf("%d requests", n)
			}
			_ = s.Body.Close()
		})
	}
}

// Lanes beside the first leave the download alone when they fail: a registry may bound
// connections.
func TestARegistryThatWantsOneConnectionGetsOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLink(32 << 20)
		l.delay, l.rate = time.Millisecond, every(1e7)
		limited := &oci.Error{Kind: oci.Limited, Registry: reg, Host: reg, Status: 429, Reason: "too many"}
		refused := 0
		l.refuse = func(int) error {
			if l.open.Load() > 0 {
				refused++
				return limited
			}
			return nil
		}
		all(t, over(t, l, 4), l, 0)
		if refused == 0 || refused > 15 {
			t.Errorf("%d requests were refused", refused)
		}
	})
}

func TestLanesGiveWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLink(32 << 20)
		l.delay, l.rate = time.Millisecond, every(1e7)
		l.turns.Store(1)
		all(t, over(t, l, 8), l, 0)
		if n := l.most.Load(); n != 2 {
			t.Errorf("%d connections with one free turn", n)
		}
		l.turns.Store(0)
		all(t, over(t, l, 8), l, 0)
		if l.turns.Load() != 0 {
			t.Error("a turn was not given back")
		}
	})
}

// A reader that does not read holds its part of the memory, and nothing is asked for.
func TestSlowReaderHoldsItsPart(t *testing.T) {
	testkit.SkipShort(t)
	t.Parallel()
	for _, connections := range []int{2, 4, 64} {
		synctest.Test(t, func(t *testing.T) {
			l := newLink(64 << 20)
			l.rate = every(1e8)
			lanes := over(t, l, connections)
			s, err := lanes.Open(t.Context(), l.ref(), 0)
			if err != nil {
				t.Fatal(err)
			}
			_ = wait.For(t.Context(), time.Minute)
			held, _ := lanes.memory.Used()
			if held > memory/2 || l.sent.Load() > memory/2 || l.open.Load() != 0 {
				t.Errorf("%d bytes are held, %d came, %d answers are open", held, l.sent.Load(), l.open.Load())
			}
			if got, err := io.ReadAll(s.Body); err != nil || !bytes.Equal(got, l.content) {
				t.Errorf("then %d bytes: %v", len(got), err)
			}
			_ = s.Body.Close()
		})
	}
}

// Many downloads share the memory. Those for which there is none come over one connection.
func TestDownloadsShareTheMemory(t *testing.T) {
	testkit.SkipShort(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLink(2 << 20)
		l.rate = every(1e7)
		lanes := over(t, l, 4)
		var open []*oci.Stream
		for range 120 {
			s, err := lanes.Open(t.Context(), l.ref(), 0)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, s)
		}
		synctest.Wait()
		if held, waiting := lanes.memory.Used(); held > memory || waiting != 0 {
			t.Errorf("%d bytes are held, %d wait", held, waiting)
		}
		if n := l.plainly.Load(); n < 1 || n > 110 {
			t.Errorf("%d came over one connection", n)
		}
		for _, s := range open {
			if got, err := io.ReadAll(s.Body); err != nil || !bytes.Equal(got, l.content) {
				t.Errorf("%d bytes: %v", len(got), err)
			}
			_ = s.Body.Close()
		}
		if held, _ := lanes.memory.Used(); held != 0 {
			t.Errorf("%d bytes are not given back", held)
		}
	})
}

func TestLeavingEndsAllAtOnce(t *testing.T) {
	t.Parallel()
	for _, closes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			l := newLink(64 << 20)
			l.delay, l.rate = time.Second, every(1e5)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			s, err := over(t, l, 4).Open(ctx, l.ref(), 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(s.Body, make([]byte, 1000)); err != nil {
				t.Error(err)
			}
			before, enough := time.Now(), errors.New("enough")
			if !closes {
				cancel(enough)
				if _, err := io.Copy(io.Discard, s.Body); !errors.Is(err, enough) {
					t.Errorf("reading ended with %v", err)
				}
			}
			_ = s.Body.Close()
			if time.Since(before) != 0 || l.open.Load() != 0 {
				t.Errorf("%d answers were open after %v", l.open.Load(), time.Since(before))
			}
		})
	}
}

// What the first answer may look like instead, and what is done about it.
func TestOneConnectionWhereRangesAreNotServed(t *testing.T) {
	t.Parallel()
	invalid := &oci.Error{Kind: oci.Invalid, Registry: reg, Host: reg, By: oci.Registry, Status: 501, Reason: "unsupported"}
	other := &oci.Error{Kind: oci.Unavailable, Registry: reg, Host: reg, By: oci.Registry, Status: 206, Reason: "wrong range"}
	dead := &oci.Error{Kind: oci.Unavailable, Registry: reg, Host: "cdn", By: oci.Storage, Status: 403, Reason: "dead link"}
	for _, c := range []struct {
		name    string
		refuse  func(int) error
		change  func(*answer)
		plainly int64 // requests
	}{
		{name: "the whole", change: func(a *answer) {
			body := a.stream.Body.(*wireBody)
			body.rest, a.length = body.link.content, -1
		}, plainly: 0},
		{name: "no size", change: func(a *answer) { a.stream.Size = -1 }, plainly: 1},
		{name: "compressed", change: func(a *answer) { a.stream.Coding = "gzip" }, plainly: 1},
		{name: "refused", refuse: nth[error](invalid, 1), plainly: 1},
		{name: "another range", refuse: nth[error](other, 1), plainly: 1},
		{name: "a dead link", refuse: nth[error](dead, 1), plainly: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLink(4 << 20)
				l.refuse = c.refuse
				if c.change != nil {
					l.change = func(n int, a *answer) {
						if n == 1 {
							c.change(a)
						}
					}
				}
				lanes := over(t, l, 4)
				all(t, lanes, l, 0)
				all(t, lanes, l, 5) // is not tried again
				if n := l.plainly.Load(); n != c.plainly+1 {
					t.Errorf("%d plain requests, want %d", n, c.plainly+1)
				}
				_ = wait.For(t.Context(), plainFor)
				l.change = nil
				all(t, lanes, l, 0)
				if n := l.plainly.Load(); n != c.plainly+1 {
					t.Errorf("still plain after %v", plainFor)
				}
			})
		})
	}
}

// An empty blob has no range, which says nothing about others.
func TestAnEmptyBlobIsAskedForAnew(t *testing.T) {
	t.Parallel()
	l := newLink(0)
	l.refuse = nth[error](&oci.Error{Kind: oci.Invalid, Registry: reg, Host: reg, By: oci.Registry, Status: 416, Reason: "no such range"}, 1)
	lanes := over(t, l, 4)
	all(t, lanes, l, 0)
	if l.plainly.Load() != 1 || lanes.plain.has(reg) {
		t.Errorf("%d plain requests; other blobs too: %t", l.plainly.Load(), lanes.plain.has(reg))
	}
}

// Later answers that are no ranges of the same blob end the download, so that it begins
// anew.
func TestOtherAnswersEndTheDownload(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*answer){
		"the whole":    func(a *answer) { a.length = -1 },
		"another size": func(a *answer) { a.stream.Size++ },
		"compressed":   func(a *answer) { a.stream.Coding = "gzip" },
		"a redirect":   func(a *answer) { _ = a.stream.Body.Close(); a.stream.Body = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLink(8 << 20)
				l.change = func(n int, a *answer) {
					if n > 1 {
						change(a)
					}
				}
				s, err := over(t, l, 4).Open(t.Context(), l.ref(), 0)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(s.Body)
				if e, ok := oci.AsError(err); !ok || !e.Passing() || !errors.Is(err, errOther) || !bytes.Equal(got, l.content[:firstLeg]) {
					t.Errorf("%d bytes, then %v", len(got), err)
				}
				_ = s.Body.Close()
				if l.open.Load() != 0 {
					t.Errorf("%d answers are not closed", l.open.Load())
				}
			})
		})
	}
}

func TestErrorsOfTheFirstAnswerAreTheCallers(t *testing.T) {
	t.Parallel()
	l := newLink(4 << 20)
	absent := &oci.Error{Kind: oci.NotFound, Registry: reg, Host: reg, By: oci.Registry, Status: 404, Reason: "not found"}
	l.refuse = every[error](absent)
	lanes := over(t, l, 4)
	if s, err := lanes.Open(t.Context(), l.ref(), 0); s != nil || !errors.Is(err, absent) || l.requests.Load() != 1 {
		t.Errorf("%v, %v after %d requests", s, err, l.requests.Load())
	}
	if held, _ := lanes.memory.Used(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}
}
