package gate

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"oci-proxy/node/reload"
)

// htpasswd writes a file of users and passwords, given in turn.
func htpasswd(t *testing.T, logins ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "users")
	writeUsers(t, file, bcrypt.MinCost, logins...)
	return file
}

// writeUsers replaces a file of users.
func writeUsers(t *testing.T, file string, cost int, logins ...string) {
	t.Helper()
	var text strings.Builder
	for i := 0; i < len(logins); i += 2 {
		h, err := bcrypt.GenerateFromPassword([]byte(logins[i+1]), cost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s:%s\n", logins[i], h)
	}
	replace(t, file, text.String())
}

func replace(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func TestUsersOfTheFileAndOfTheConfigBothCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, "auth: {username: ann, password: right, htpasswd_file: "+htpasswd(t, "bob", "b:ob", "cid", "cid")+"}")
		for i, c := range []struct {
			user, password string
			status         int
		}{
			{"ann", "right", 200},
			{"bob", "b:ob", 200},
			{"bob", "b:ob", 200}, // remembered
			{"cid", "cid", 200},
			{"ann", "cid", 401},
			{"bob", "ob", 401},
			{"bob:b", "ob", 200}, // on the wire this is bob with b:ob
			{"dan", "right", 401},
			{"", "right", 401},
			{"bob", "", 401},
		} {
			d.want(c.status, 0, fmt.Sprintf("192.0.2.%d", i), c.user, c.password)
		}
	})
}

func TestUsersAreReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		file := htpasswd(t, "bob", "old")
		d := newDoor(t, "auth: {htpasswd_file: "+file+"}")
		later := func() { time.Sleep(reload.Every) } // in the bubble
		const at = "192.0.2.1"
		d.want(200, 0, at, "bob", "old")
		writeUsers(t, file, bcrypt.MinCost, "bob", "new", "cid", "cid")
		d.want(200, 0, at, "bob", "old") // the file was not looked at yet
		later()
		d.want(401, 0, at, "bob", "old") // though it was remembered
		d.want(200, 0, at, "bob", "new")
		d.want(200, 0, at, "cid", "cid")
		for _, text := range []string{"", "bob", "bob:new\n", "bob:$2y$31$" + strings.Repeat("x", 53)} {
			replace(t, file, text)
			later()
			d.want(200, 0, at, "bob", "new")
			if err := d.logins.users.Health(); err == nil || strings.Contains(err.Error(), "new\n") {
				t.Errorf("%q: health %v", text, err)
			}
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		later()
		d.want(200, 0, at, "cid", "cid")
		if n := strings.Count(d.log.String(), "changed files cannot be read"); n != 5 {
			t.Errorf("%d complaints in\n%s", n, d.log)
		}
		later()
		d.want(200, 0, at, "cid", "cid")
		if n := strings.Count(d.log.String(), "changed files cannot be read"); n != 5 {
			t.Errorf("the same complaint again:\n%s", d.log)
		}
		writeUsers(t, file, bcrypt.MinCost, "dan", "dan")
		later()
		d.want(200, 0, at, "dan", "dan")
		d.want(401, 0, at, "cid", "cid")
		if err := d.logins.users.Health(); err != nil {
			t.Error(err)
		}
	})
}

func TestARightLoginIsBelievedForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, "auth: {htpasswd_file: "+htpasswd(t, "bob", "right")+"}")
		from := Network(netip.MustParseAddr("192.0.2.1"))
		d.want(200, 0, "192.0.2.1", "bob", "right")
		for range 3 { // each use renews it
			time.Sleep(loginAge - time.Second) // in the bubble
			if !d.logins.known(from, "bob", "right") || d.logins.known(from, "bob", "wrong") {
				t.Error("forgotten too soon, or mistaken")
			}
		}
		if d.logins.known(Network(netip.MustParseAddr("192.0.2.2")), "bob", "right") {
			t.Error("it is known at another address, too")
		}
		time.Sleep(loginAge) // in the bubble
		if d.logins.known(from, "bob", "right") {
			t.Error("believed for ever")
		}
		for i := range 2 * maxLogins {
			d.logins.remember(d.logins.key(anywhere, "bob", fmt.Sprint(i)), d.logins.users.Get())
		}
		if n := d.logins.right.Len(); n != maxLogins {
			t.Errorf("%d are remembered", n)
		}
	})
}

func TestOneHashForManyRequestsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, "auth: {htpasswd_file: "+htpasswd(t, "bob", "right")+"}")
		var computed atomic.Int64
		all := make(chan struct{}) // closed when all have asked
		d.logins.compare = func(hash, password []byte) error {
			computed.Add(1)
			<-all
			return bcrypt.CompareHashAndPassword(hash, password)
		}
		var asked sync.WaitGroup
		for i := range 200 {
			asked.Go(func() {
				if w := d.knock(fmt.Sprintf("192.0.2.%d", i), "bob", "right"); w.Code != 200 {
					t.Errorf("status %d", w.Code)
				}
			})
		}
		synctest.Wait()
		close(all)
		asked.Wait()
		if n := computed.Load(); n != 1 {
			t.Errorf("%d hashes were computed for one login", n)
		}
	})
}

// A refusal must not tell whether a user exists. The hash takes the time: every wrong
// login costs one, as expensive as bob's.
func TestUnknownUsersCostAsMuch(t *testing.T) {
	t.Parallel()
	const cost = 5
	file := htpasswd(t, "bob", "right")
	writeUsers(t, file, cost, "bob", "right")
	d := newDoor(t, "auth: {username: ann, password: right, htpasswd_file: "+file+"}")
	var costs []int
	d.logins.compare = func(hash, password []byte) error {
		c, err := bcrypt.Cost(hash)
		if err != nil {
			t.Error(err)
		}
		costs = append(costs, c)
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	for _, user := range []string{"bob", "ann", "nobody", ""} {
		costs = nil
		if ok, err := d.logins.check(t.Context(), netip.Prefix{}, user, "guess"); ok || err != nil {
			t.Fatal("let in", err)
		}
		if len(costs) != 1 || costs[0] != cost {
			t.Errorf("%q costs hashes of %d, want one of %d", user, costs, cost)
		}
	}
}
