package cluster

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/node/membership"
	"oci-proxy/transfer/directory"
	"oci-proxy/transfer/grants"
)

// A stage is a node that tells others what it holds, and what these have heard.
type stage struct {
	t      *testing.T
	v      *membership.View
	shards []*grants.Shard
	hangs  map[string]bool // members that hear nothing, and fail after tellTime
	disk   chan struct{}   // closed when the disk that hangs goes on

	mu    sync.Mutex // guards what follows, and v
	heard map[string]*directory.Directory
	tells int             // messages that they were sent
	early map[string]bool // members of a version that follows no partitions
}

// onStage runs the test in a bubble, with a node that has two shards. The disk of the second one
// may hang.
func onStage(t *testing.T, hung bool, hangs map[string]bool, test func(s *stage)) {
	t.Helper()
	dirs := []string{t.TempDir(), t.TempDir()} // they are removed outside of the bubble
	synctest.Test(t, func(t *testing.T) {
		s := &stage{t: t, v: viewOf(t, 40), hangs: hangs, disk: make(chan struct{}), heard: map[string]*directory.Directory{}}
		if !hung {
			close(s.disk)
		}
		for i, dir := range dirs {
			shard := grants.OpenShard(dir, cache.Options{Bound: 1 << 20, Fault: func(op, _ string) error {
				if i == 1 && op == "list" {
					<-s.disk
				}
				return nil
			}})
			defer func() {
				if err := shard.Close(); err != nil {
					t.Error(err)
				}
			}()
			s.shards = append(s.shards, shard)
		}
		for _, m := range s.v.Members[1:] {
			s.heard[m.ID] = directory.New(1000)
		}
		d := &directories{
			here: directory.New(1000), out: directory.NewOutbox(tellAfter), view: s.view,
			shards: func() []*grants.Shard { return s.shards },
			others: others{changed: func() <-chan struct{} { return nil }, known: all, healthy: all, tell: s.tell},
		}
		d.watch()
		ctx, end := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { d.run(ctx) })
		test(s)
		end()
		run.Wait()
	})
}

func (s *stage) view() *membership.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.v
}

func (s *stage) tell(ctx context.Context, id string, m *directory.Message) (well, follows bool) {
	if s.hangs[id] {
		select {
		case <-time.After(tellTime):
		case <-ctx.Done():
		}
		return false, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tells++
	if s.early[id] {
		m.Covers = nil
	}
	return !s.heard[id].Hear(s.v.Self.ID, m), !s.early[id]
}

// sample returns a blob of each member's, by its id.
func (s *stage) sample() map[string][]byte {
	of := map[string][]byte{}
	for i := 0; len(of) < len(s.v.Members); i++ {
		content := []byte(strconv.Itoa(i))
		of[s.v.Ring.Owner(digest.FromBytes(content).String()).ID] = content
	}
	return of
}

// put puts blobs into a shard.
func (s *stage) put(shard int, blobs map[string][]byte) {
	s.t.Helper()
	for _, content := range blobs {
		if _, err := s.shards[shard].Put(s.t.Context(), digest.FromBytes(content), "reg.test", "", content); err != nil {
			s.t.Fatal(err)
		}
	}
}

// remove takes blobs out of a shard.
func (s *stage) remove(shard int, blobs map[string][]byte) {
	s.t.Helper()
	for _, content := range blobs {
		if _, gone := s.shards[shard].Stock().Remove(s.t.Context(), digest.FromBytes(content)); !gone {
			s.t.Error("not removed")
		}
	}
}

// wantHeard fails the test unless all members that hear anything know whether this node holds
// their blobs, and whether they have heard all.
func (s *stage) wantHeard(when string, blobs map[string][]byte, holds, all bool) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, here := range s.heard {
		k, _ := directory.KeyOf(digest.FromBytes(blobs[id]).String())
		if held := len(here.Names(k)) > 0; !s.hangs[id] && held != holds {
			s.t.Errorf("%s: %s knows of its blob: %v", when, id, held)
		}
		if whole := here.Knows(k, s.v.Ring.Partition(digest.FromBytes(blobs[id]).String()), s.v.Ring.Hash(), []string{s.v.Self.ID}); !s.hangs[id] && whole != all {
			s.t.Errorf("%s: %s knows all: %v", when, id, whole)
		}
	}
}

// moment is longer than it takes till members are told of anything.
const moment = 3 * tellAfter

// Members that hang do not keep others from being told, neither of all nor of changes.
func TestMembersThatHangDelayNobody(t *testing.T) {
	t.Parallel()
	onStage(t, false, map[string]bool{"node-003": true, "node-011": true, "node-039": true}, func(s *stage) {
		blobs := s.sample()
		s.put(0, blobs)
		<-time.After(moment)
		s.wantHeard("when all is told", blobs, true, true)
		s.remove(0, blobs)
		<-time.After(moment)
		s.wantHeard("after changes", blobs, false, true)
	})
}

// A shard whose disk hangs while it is listed does not keep the node from telling what the other
// holds, and what that gets and loses; but not that this is all.
func TestAShardThatIsNotListedDelaysNobody(t *testing.T) {
	t.Parallel()
	onStage(t, true, nil, func(s *stage) {
		blobs := s.sample()
		s.put(0, blobs)
		<-time.After(listTime + moment)
		s.wantHeard("while a shard is not listed", blobs, true, false)
		s.remove(0, blobs)
		<-time.After(moment)
		s.wantHeard("after changes", blobs, false, false)
		close(s.disk)
		<-time.After(moment)
		s.wantHeard("when all is listed", blobs, false, true)
	})
}

// A blob that one shard loses and another has is held.
func TestABlobOfTwoShards(t *testing.T) {
	t.Parallel()
	onStage(t, false, nil, func(s *stage) {
		blobs := s.sample()
		s.put(0, blobs)
		<-time.After(moment)
		s.put(1, blobs)
		s.remove(0, blobs)
		<-time.After(moment)
		s.wantHeard("in the other shard", blobs, true, true)
		s.remove(1, blobs)
		<-time.After(moment)
		s.wantHeard("in none", blobs, false, true)
	})
}

// When the ring has changed, those are told that it gives something, and of nobody else; and all
// know all by the new ring.
func TestAChangeOfTheRingIsToldToWhomItConcerns(t *testing.T) {
	t.Parallel()
	onStage(t, false, nil, func(s *stage) {
		next := viewOf(t, 41)
		concerned := map[string]bool{"node-040": true}
		for p := range uint16(next.Ring.Partitions()) {
			if id := next.Ring.OwnerOf(p); id != s.v.Ring.OwnerOf(p) && id != s.v.Self.ID {
				concerned[id] = true
			}
		}
		<-time.After(moment)
		s.mu.Lock()
		before := s.tells
		s.v, s.heard["node-040"] = next, directory.New(1000)
		s.mu.Unlock()
		<-time.After(tellStep + moment)
		s.mu.Lock()
		if told := s.tells - before; told != len(concerned) || told > len(next.Members)/2 {
			t.Errorf("%d messages for a change that concerns %d members", told, len(concerned))
		}
		s.mu.Unlock()
		blobs := s.sample()
		s.put(0, blobs)
		<-time.After(moment)
		s.wantHeard("after the change", blobs, true, true)
	})
}

// Members of an earlier version are told all after each change of the ring, as that one does. They
// count on it in that ring alone.
func TestAChangeOfTheRingIsToldToEarlierVersions(t *testing.T) {
	t.Parallel()
	onStage(t, false, nil, func(s *stage) {
		blobs := s.sample()
		s.put(0, blobs)
		s.mu.Lock()
		s.early = map[string]bool{}
		for id := range s.heard {
			s.early[id] = true
		}
		s.mu.Unlock()
		<-time.After(moment)
		s.wantHeard("when all is told", blobs, true, true)
		next := viewOf(t, 41)
		s.mu.Lock()
		s.tells, s.v, s.heard["node-040"] = 0, next, directory.New(1000)
		s.mu.Unlock()
		<-time.After(tellStep + moment)
		s.mu.Lock()
		if s.tells != len(next.Members)-1 {
			t.Errorf("%d messages for a change of a ring of %d others", s.tells, len(next.Members)-1)
		}
		s.mu.Unlock()
		blobs = s.sample()
		s.put(0, blobs)
		<-time.After(moment)
		s.wantHeard("after the change", blobs, true, true)
	})
}
