package membership

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/testkit"
)

var noon = time.Unix(1_800_000_000, 0)

func TestTheIdentityStaysAndTheEpochGrows(t *testing.T) {
	t.Parallel()
	home := filepath.Join(t.TempDir(), "cache")
	last := identity{}
	for i, clock := range []time.Duration{0, 0, time.Hour, -24 * time.Hour, -24 * time.Hour, 48 * time.Hour} {
		now, err := identify(home, noon.Add(clock))
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && (now.id != last.id || now.epoch <= last.epoch) {
			t.Errorf("the identity is %v after %v", now, last)
		}
		last = now
	}
	if last.epoch != uint64(noon.Unix()+48*3600) {
		t.Errorf("the epoch is %d, not the clock's", last.epoch)
	}
	for name, want := range map[string]os.FileMode{"": 0o700, idFile: 0o600, epochFile: 0o600} {
		if info, err := os.Stat(filepath.Join(home, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: mode %v, %v", name, info.Mode(), err)
		}
	}
	if files, _ := os.ReadDir(home); len(files) != 2 {
		t.Errorf("there are %d files, want 2", len(files))
	}
}

func TestDamagedFilesAreReplaced(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	first, _ := identify(home, noon)
	for _, damage := range []string{"", "x", strconv.FormatUint(1<<63, 10)} {
		os.WriteFile(filepath.Join(home, epochFile), []byte(damage), 0o600)
		if again, err := identify(home, noon.Add(time.Minute)); err != nil || again.id != first.id || again.epoch != uint64(noon.Unix()+60) {
			t.Errorf("epoch file %q: %v, %v", damage, again, err)
		}
	}
	os.WriteFile(filepath.Join(home, idFile), []byte("../../etc"), 0o600)
	second, err := identify(home, noon)
	if err != nil || second.id == first.id {
		t.Errorf("%v, %v", second, err)
	}
	if third, _ := identify(home, noon); third.id != second.id {
		t.Error("the new id was not saved")
	}
}

func TestWithoutADirectoryTheIdentityIsNew(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	for _, dir := range []string{"", file, filepath.Join(file, "below")} {
		if who, err := identify(dir, noon); err == nil || !validID(who.id) || who.epoch != uint64(noon.Unix()) {
			t.Errorf("%q: %v, %v", dir, who, err)
		}
	}
}

func TestTheAddressBookKeepsLostMembersForADay(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	b, err := openAddressBook(home, defaultGrace, noon)
	if err != nil {
		t.Fatal(err)
	}
	a, c, d, e := newID(), newID(), newID(), newID()
	b.note(snapshot{self: a, members: []Member{
		{ID: a, Name: "a", Gossip: "10.0.0.1:1", alive: true},
		{ID: c, Name: "c", Gossip: "10.0.0.2:1", alive: true},
		{ID: d, Name: "d", Gossip: "10.0.0.3:1", alive: true},
		{ID: e, Name: "e", Gossip: "10.0.0.4:1", alive: true},
	}}, noon)
	if n := len(b.lost()); n != 0 {
		t.Errorf("%d members are lost, want none", n)
	}
	// c is down; d has gone for good; a newcomer has e's address.
	b.note(snapshot{self: a, members: []Member{{ID: c, Name: "c", Gossip: "10.0.0.2:1"}, {ID: newID(), Name: "f", Gossip: "10.0.0.4:1", alive: true}}, gone: []Member{{ID: d, State: Draining}}}, noon)
	if err := b.save(noon, renewed); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		after time.Duration
		lost  int
	}{{0, 2}, {23 * time.Hour, 2}, {-time.Hour, 2}, {25 * time.Hour, 0}} {
		again, err := openAddressBook(home, defaultGrace, noon.Add(test.after))
		if err != nil {
			t.Fatal(err)
		}
		again.note(snapshot{self: a}, noon.Add(test.after))
		if got := again.lost(); len(got) != test.lost {
			t.Errorf("after %v the lost members are %v", test.after, got)
		}
	}
	os.WriteFile(filepath.Join(home, membersFile), []byte(`{"x":{"gossip":"nowhere"}}`), 0o600)
	if b, err := openAddressBook(home, defaultGrace, noon); err != nil || len(b.known) != 0 {
		t.Errorf("%v, %v", b.known, err)
	}
	os.WriteFile(filepath.Join(home, membersFile), []byte("{"), 0o600)
	if b, err := openAddressBook(home, defaultGrace, noon); err == nil || len(b.known) != 0 {
		t.Errorf("%v, %v", b.known, err)
	}
}

// Members that stay alive are not forgotten, even after a day without any change.
func TestTheAddressBookDoesNotForgetLiveMembers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		home := t.TempDir()
		b, err := openAddressBook(home, defaultGrace, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		log := new(testkit.Log)
		m := &Membership{book: b, formers: newFormers(), rings: &ringsKeeper{}, bridge: newLogBridge(slog.New(slog.NewTextHandler(log, nil)))}
		m.ctx, m.stop = context.WithCancel(t.Context())
		m.tasks.Go(m.keep)
		self, other := newID(), newID()
		b.note(snapshot{self: self, members: []Member{{ID: self, Gossip: "10.0.0.1:1", alive: true}, {ID: other, Gossip: "10.0.0.2:1", alive: true}}}, time.Now())
		seen := func() time.Duration { // as a node that starts now reads it
			again, err := openAddressBook(home, defaultGrace, time.Now())
			if err != nil || len(again.known) != 1 {
				t.Fatalf("after a crash, %v are known, %v", again.known, err)
			}
			return time.Since(time.Unix(again.known[other].Seen, 0))
		}
		pass := func(d time.Duration) {
			time.Sleep(d) // in the bubble
			synctest.Wait()
		}
		pass(saveEvery + time.Second)
		first, err := os.Stat(filepath.Join(home, membersFile))
		if err != nil {
			t.Fatal(err)
		}
		pass(30 * time.Minute)
		if now, err := os.Stat(filepath.Join(home, membersFile)); err != nil || !os.SameFile(first, now) {
			t.Errorf("the file was written although nothing has changed, %v", err)
		}
		for range 25 {
			pass(time.Hour)
			if age := seen(); age > renewed+saveEvery {
				t.Errorf("the member was last seen %v ago", age)
			}
		}

		// A save that failed is tried again.
		if err := os.Rename(home, home+".away"); err != nil {
			t.Fatal(err)
		}
		b.note(snapshot{self: self, members: []Member{{ID: other, Gossip: "10.0.0.3:1", alive: true}}}, time.Now())
		pass(time.Minute)
		if !log.Has("known members not saved") {
			t.Error("the failure was not logged")
		}
		if err := os.Rename(home+".away", home); err != nil {
			t.Fatal(err)
		}
		pass(saveEvery)
		if again, err := openAddressBook(home, defaultGrace, time.Now()); err != nil || again.known[other].Gossip != "10.0.0.3:1" {
			t.Errorf("%v, %v", again.known, err)
		}

		pass(30 * time.Minute)
		m.stop()
		m.tasks.Wait()
		if age := seen(); age > time.Second {
			t.Errorf("at the end the member was last seen %v ago", age)
		}
	})
}
