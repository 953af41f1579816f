package gate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"oci-proxy/transfer/testkit"
)

// hashCost is what a hash costs in these tests.
const hashCost = 100 * time.Millisecond

// slowDoor is a door whose hashes cost hashCost, one at a time, and guesses at it.
func slowDoor(t *testing.T) door {
	d := newDoor(t, "auth: {htpasswd_file: "+htpasswd(t, "ann", "right", "bob", "right")+"}")
	d.logins.desk = newDesk(1)
	d.logins.compare = func(_, password []byte) error {
		time.Sleep(hashCost) // in the bubble
		if string(password) != "right" {
			return bcrypt.ErrMismatchedHashAndPassword
		}
		return nil
	}
	return d
}

// floods are guesses that come at once: where the i-th comes from, and whom it names.
var floods = []struct {
	name       string
	from, user func(i int) string
	again      bool // each guesses on
	alike      bool // nothing tells the person from them but when she comes
}{
	{"at her own name", apart, ann, false, false},
	{"at her own name on and on", apart, ann, true, false},
	{"at her own name from all over", allOver, ann, false, true},
	{"at other names", apart, others, false, false},
	{"at other names from all over", allOver, others, true, true},
	{"at another name from all over", allOver, func(int) string { return "bob" }, true, false},
	{"from one network of IPv4", func(i int) string { return fmt.Sprintf("198.51.100.%d", i%256) }, ann, true, false},
	{"from one /48 of IPv6", func(i int) string { return fmt.Sprintf("2001:db8:7:%x::1", i) }, ann, true, false},
	{"from one /32 of IPv6", func(i int) string { return fmt.Sprintf("2001:db8:%x::1", i) }, ann, true, false},
	{"from her neighbourhood", func(i int) string { return fmt.Sprintf("192.0.2.%d", i%200+50) }, others, false, true},
}

func apart(i int) string   { return fmt.Sprintf("10.%d.%d.%d", i/8, i%8*30, i%250+1) }
func allOver(i int) string { return fmt.Sprintf("%d.%d.9.9", i%200+1, i%256) }
func ann(int) string       { return "ann" }
func others(i int) string  { return fmt.Sprint("user", i) }

// 400 guesses would take 40 s one after the other. A person's first login takes two
// at most, before them, among them and after them.
func TestAPersonDoesNotWaitForGuesses(t *testing.T) {
	t.Parallel()
	guesses := testkit.Times(400, 400)
	for _, flood := range floods {
		for _, at := range []int{0, guesses / 2, guesses - 1} {
			if flood.alike && at == guesses/2 {
				continue // nothing tells her from them
			}
			t.Run(fmt.Sprint(flood.name, " ", at), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					d, over := slowDoor(t), new(atomic.Bool)
					var all sync.WaitGroup
					for i := range guesses {
						if i == at {
							all.Go(func() { d.soon("192.0.2.7") })
							synctest.Wait()
						}
						all.Go(func() {
							for n := 0; n == 0 || flood.again && !over.Load(); n++ {
								d.knock(flood.from(i), flood.user(i), fmt.Sprint("guess ", i, n))
								time.Sleep(hashCost) // in the bubble
							}
						})
						synctest.Wait()
					}
					time.Sleep(30 * time.Second) // in the bubble
					d.logins.right.Purge()       // as after five minutes
					d.soon("192.0.2.8")
					over.Store(true)
					all.Wait()
				})
			})
		}
	}
}

// soon fails the test unless ann is let in within 2 s.
func (d door) soon(from string) {
	d.t.Helper()
	start := time.Now()
	if w := d.knock(from, "ann", "right"); w.Code != 200 || time.Since(start) > 2*time.Second {
		d.t.Errorf("status %d after %s", w.Code, time.Since(start))
	}
}

// A login that was right from an address does not wait for guesses from the same one.
func TestAKnownLoginDoesNotWaitForGuessesFromItsOwnAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := slowDoor(t)
		d.want(200, hashCost, "192.0.2.7", "ann", "right")
		var all sync.WaitGroup
		for i := range 400 {
			all.Go(func() { d.knock("192.0.2.7", "ann", fmt.Sprint(i)) })
		}
		synctest.Wait()
		for range 10 {
			d.want(200, 0, "192.0.2.7", "ann", "right")
		}
		all.Wait()
	})
}

// Guesses themselves are looked at as before: each is refused, after a hash.
func TestGuessesWaitForTheirRefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := slowDoor(t)
		start := time.Now()
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				if w := d.knock(fmt.Sprintf("10.0.%d.1", i), []string{"ann", "nobody"}[i%2], fmt.Sprint(i)); w.Code != 401 {
					t.Errorf("status %d", w.Code)
				}
			})
		}
		all.Wait()
		if took := time.Since(start); took != 100*hashCost {
			t.Errorf("100 guesses took %s", took)
		}
	})
}

// The wait for a refusal does not tell whether the user exists: with equal traits,
// names are served alike.
func TestTheDeskDoesNotTellUsersFromOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var waits [2][]time.Duration
		for which, user := range []string{"ann", "nobody"} {
			d := slowDoor(t)
			waits[which] = make([]time.Duration, 60)
			var all sync.WaitGroup
			for i := range 60 {
				all.Go(func() {
					start := time.Now()
					d.knock(fmt.Sprintf("10.%d.0.1", i), user, fmt.Sprint(i))
					waits[which][i] = time.Since(start)
				})
				synctest.Wait()
			}
			all.Wait()
		}
		if fmt.Sprint(waits[0]) != fmt.Sprint(waits[1]) {
			t.Errorf("ann waits\n%v\nnobody\n%v", waits[0], waits[1])
		}
	})
}

func TestTheDeskIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(1)
		end, err := d.take(t.Context(), Network(netip.MustParseAddr("192.0.2.1")), "ann")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var crowded, left atomic.Int64
		var all sync.WaitGroup
		take := func(from netip.Addr, user string) {
			_, err := d.take(ctx, Network(from), user)
			switch {
			case errors.Is(err, errCrowded):
				crowded.Add(1)
			case errors.Is(err, context.Canceled):
				left.Add(1)
			}
		}
		const person = "198.51.100.1"
		all.Go(func() { take(netip.MustParseAddr(person), "ann") })
		synctest.Wait()
		for i := range 2 * maxHashes {
			all.Go(func() { take(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), "bob") })
		}
		synctest.Wait()
		if n := crowded.Load(); n != maxHashes+1 || len(d.waiting) != maxHashes || d.waiting[0].from.Addr().String() != person {
			t.Errorf("%d refused, %d wait, the first from %s", n, len(d.waiting), d.waiting[0].from)
		}
		cancel()
		all.Wait()
		end(false)
		if left.Load() != maxHashes || len(d.waiting) != 0 || len(d.crowd) != 0 || d.free != 1 {
			t.Errorf("%d left, %d wait with %d traits, %d free", left.Load(), len(d.waiting), len(d.crowd), d.free)
		}
		for i := range 2 * maxTraits {
			end, err := d.take(t.Context(), Network(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})), fmt.Sprint(i))
			if err != nil {
				t.Fatal(err)
			}
			end(i%2 == 0)
		}
		if d.wrong.Len() != maxTraits || d.good.Len() != maxGood {
			t.Errorf("%d traits, %d good networks", d.wrong.Len(), d.good.Len())
		}
	})
}
