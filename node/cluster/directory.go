package cluster

import (
	"cmp"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/membership"
	"oci-proxy/transfer/directory"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/peer"
)

// tellWidth is how many members are told at a time all that this node holds, and how many
// of changes.
const tellWidth = 8

// directories are what members tell each other of the blobs that they hold: others tell this
// node of those that are its own on the ring, and it tells others.
type directories struct {
	many   int // up to how many members all are asked, whatever others have told
	here   *directory.Directory
	out    *directory.Outbox
	view   func() *membership.View
	shards func() []*grants.Shard
	others others

	boots map[string]uint64 // the members that were alive when run last saw them
}

// others are the members as the directories need them.
type others struct {
	changed func() <-chan struct{} // is closed when they change
	known   func(id string) bool   // also those that the View does not have yet
	healthy func(id string) bool
	// tell sends a member a message, and reports whether it has heard it, and all before it, and
	// whether it follows which partitions a session covers.
	tell func(ctx context.Context, id string, m *directory.Message) (well, follows bool)
}

// newDirectories returns the directories of a cluster. They hear at once what this node gets.
func newDirectories(cfg *Config, n *network, r *router) *directories {
	d := &directories{
		many: cmp.Or(cfg.Seams.Many, maxHolders),
		here: directory.New(directory.MaxEntries), out: directory.NewOutbox(cmp.Or(cfg.Seams.TellAfter, tellAfter)),
		view: r.view, shards: cfg.Registries.Shards,
		others: others{
			changed: n.members.Changed, healthy: n.client.Healthy,
			known: func(id string) bool {
				_, is := n.members.Member(id)
				return is
			},
			tell: func(ctx context.Context, id string, m *directory.Message) (well, follows bool) {
				again, follows, err := peer.TellDirectory(ctx, n.client, id, m.Encode(), tellTime)
				return err == nil && !again, follows
			},
		},
	}
	d.watch()
	return d
}

// watch makes the shards tell what they get and lose.
func (d *directories) watch() {
	for _, shard := range d.shards() {
		shard.Stock().Watch(d.note)
	}
}

// KeepDirectory tells the other members, until ctx ends, which of the blobs that are theirs
// this node holds.
func KeepDirectory(ctx context.Context, c *Cluster) {
	if c.directories != nil {
		c.directories.run(ctx)
	}
}

// DirectoryOf returns how large the directory is of who holds this node's blobs.
func DirectoryOf(c *Cluster) directory.Figures {
	if c.directories == nil {
		return directory.Figures{}
	}
	return c.directories.here.Figures()
}

// note hears that a shard got or lost a blob.
func (d *directories) note(blob digest.Digest) { d.out.Note(blob.String()) }

// holds reports whether any shard holds the blob.
func (d *directories) holds(blob string) bool {
	for _, shard := range d.shards() {
		if _, held, _ := shard.Known(digest.Digest(blob)); held {
			return true
		}
	}
	return false
}

// heard hears what another member tells of its blobs.
func (d *directories) heard(sender string, message []byte) (again bool, err error) {
	m, err := directory.Parse(message)
	if err != nil {
		return false, err
	}
	if m.Again {
		d.out.Again(sender)
	}
	return d.here.Hear(sender, m), nil
}

// A said is what the directory says of a blob.
type said struct {
	blob  bool     // it is one
	names []string // members that hold it
	whole bool     // nobody else holds it
}

// of returns what the directory says of what key names. It knows of nothing but blobs, and
// of none whose owner another is. Nobody tells a node any more that drains, though it owns all
// blobs if all others drain too.
func (d *directories) of(v *membership.View, key string) (s said) {
	k, ok := directory.KeyOf(key)
	s.blob = ok
	if d == nil || !ok {
		return s
	}
	s.names = d.here.Names(k)
	if len(v.Members) <= d.many || v.Ring.Owner(key).ID != v.Self.ID || v.Self.State == membership.Draining {
		return s
	}
	others := make([]string, 0, len(v.Members))
	for i := range v.Members {
		if one := &v.Members[i]; one.Alive() && one.ID != v.Self.ID {
			others = append(others, one.ID)
		}
	}
	s.whole = d.here.Knows(k, v.Ring.Partition(key), v.Ring.Hash(), others)
	return s
}

// run tells others, until ctx ends. No member waits until another is told, and none waits for
// long until all shards are listed: it is told a part before.
func (d *directories) run(ctx context.Context) {
	t := &telling{directories: d, all: make(chan struct{}, tellWidth), changes: make(chan struct{}, tellWidth)}
	defer t.under.Wait()
	listed, late := d.listed(ctx), time.NewTimer(listTime)
	defer late.Stop()
	var seen *membership.View
	var at time.Time
	for ready := false; ctx.Err() == nil; {
		changed := d.others.changed()
		if v := d.view(); v != seen || time.Since(at) >= tellStep { // another may be healthy by now
			d.see(v)
			seen, at = v, time.Now()
		}
		idle := tellStep
		if ready {
			idle = t.begin(ctx)
		}
		again := time.NewTimer(idle)
		select {
		case <-changed:
		case <-d.out.More():
		case <-listed:
			t.whole, ready, listed = true, true, nil
		case <-late.C:
			ready = true
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
}

// listed returns what is closed when it is known what the shards hold.
func (d *directories) listed(ctx context.Context) <-chan struct{} {
	all := make(chan struct{})
	go func() {
		for _, shard := range d.shards() {
			if shard.Listed(ctx) != nil {
				return // the node ends
			}
		}
		close(all)
	}()
	return all
}

// see notes who the members are.
func (d *directories) see(v *membership.View) {
	var owners []directory.Owner
	alive := map[string]uint64{}
	for i := range v.Members {
		one := &v.Members[i]
		if one.Alive() {
			alive[one.ID] = one.Epoch
		}
		if one.Hears && one.ID != v.Self.ID && one.State != membership.Draining {
			owners = append(owners, directory.Owner{ID: one.ID, Boot: one.Epoch, Up: one.Up && d.others.healthy(one.ID)})
		}
	}
	d.out.See(v.Ring, owners)
	for id, boot := range d.boots {
		if alive[id] != boot { // what it gets while it is away it tells nobody
			d.here.Doubt(id)
		}
	}
	d.boots = alive
	d.here.Keep(d.others.known)
}

// A telling tells members. It belongs to the goroutine of run.
type telling struct {
	*directories
	whole        bool          // all shards are listed
	all, changes chan struct{} // slots
	under        sync.WaitGroup
}

// begin begins to tell whoever is to be told. It returns for how long there is nobody else.
func (t *telling) begin(ctx context.Context) (idle time.Duration) {
	all, changes, idle := t.out.Due(time.Now(), t.whole)
	for _, id := range changes {
		if m := t.out.Changes(id, t.holds); m != nil {
			t.send(ctx, t.changes, id, m.Session, []*directory.Message{m})
		}
	}
	if len(all) > 0 {
		t.tell(ctx, all)
	}
	if idle == 0 || idle > tellStep {
		idle = tellStep
	}
	return idle
}

// tell tells members all, or what they have gained, from one list of what the shards hold.
func (t *telling) tell(ctx context.Context, members []string) {
	list := t.out.Begin(members)
	for _, shard := range t.shards() {
		shard.Stock().Each(func(_ string, blob digest.Digest) { list.Add(blob.String()) })
	}
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] }) // so that not all members begin with the same
	for _, id := range members {
		session, messages := list.Messages(id, t.whole)
		t.send(ctx, t.all, id, session, messages)
	}
}

// send sends a member messages of a session in the background, as soon as there is a slot.
func (t *telling) send(ctx context.Context, slots chan struct{}, id string, session uint64, messages []*directory.Message) {
	t.under.Go(func() {
		well, follows := false, false
		defer func() { t.out.Told(id, session, well, follows) }()
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return
		}
		for _, m := range messages {
			if !t.out.Wants(id, session) {
				return
			}
			var heard bool
			m.Again = t.here.Doubts(id) // one that was away does not know that
			if heard, follows = t.others.tell(ctx, id, m); !heard {
				return
			}
		}
		well = true
	})
}
