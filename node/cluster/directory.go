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
	"oci-proxy/transfer/wait"
)

// tellWidth is how many members are told at a time what this node holds.
const tellWidth = 8

// directories are what members tell each other of the blobs that they hold: others tell this
// node of those that are its own on the ring, and it tells others.
type directories struct {
	many    int // up to how many members all are asked, whatever others have told
	here    *directory.Directory
	out     *directory.Outbox
	members *membership.Membership
	view    func() *membership.View
	client  *peer.Client
	shards  func() []*grants.Shard

	boots map[string]uint64 // the members that were alive when run last saw them
}

// newDirectories returns the directories of a cluster. They hear at once what this node gets.
func newDirectories(cfg *Config, n *network, r *router) *directories {
	d := &directories{
		many: cmp.Or(cfg.Seams.Many, maxHolders),
		here: directory.New(directory.MaxEntries), out: directory.NewOutbox(cmp.Or(cfg.Seams.TellAfter, tellAfter)),
		members: n.members, view: r.view, client: n.client, shards: cfg.Registries.Shards,
	}
	for _, shard := range d.shards() {
		shard.Stock().Watch(d.note)
	}
	return d
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

// note hears that a shard holds a blob now, or does so no more.
func (d *directories) note(blob digest.Digest, held bool) {
	v := d.view()
	owner := v.Ring.Owner(blob.String()).ID
	if owner == v.Self.ID || !held && d.holds(blob) {
		return
	}
	if k, ok := directory.KeyOf(blob.String()); ok {
		d.out.Note(owner, k, held)
	}
}

// holds reports whether any shard holds the blob.
func (d *directories) holds(blob digest.Digest) bool {
	for _, shard := range d.shards() {
		if _, held, _ := shard.Known(blob); held {
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
	return d.here.Hear(sender, m), nil
}

// A said is what the directory says of a blob.
type said struct {
	blob  bool     // it is one
	names []string // members that hold it
	whole bool     // nobody else holds it
}

// of returns what the directory says of what key names. It knows of nothing but blobs, and
// of none whose owner another is.
func (d *directories) of(v *membership.View, key string) (s said) {
	k, ok := directory.KeyOf(key)
	s.blob = ok
	if d == nil || !ok {
		return s
	}
	s.names = d.here.Names(k)
	if len(v.Members) <= d.many || v.Ring.Owner(key).ID != v.Self.ID {
		return s
	}
	others := make([]string, 0, len(v.Members))
	for i := range v.Members {
		if one := &v.Members[i]; one.Alive() && one.ID != v.Self.ID {
			others = append(others, one.ID)
		}
	}
	s.whole = d.here.Knows(k, v.Ring.Hash(), others)
	return s
}

// run tells others, until ctx ends.
func (d *directories) run(ctx context.Context) {
	for ctx.Err() == nil {
		changed := d.members.Changed()
		v := d.view()
		d.see(v)
		all, changes, idle := d.out.Due(time.Now())
		switch {
		case len(all) > 0 && !d.listed(ctx):
			_ = wait.Until(ctx, changed, unlistedPause) // the loop sees ctx's end
		case len(all)+len(changes) > 0:
			d.tell(ctx, v, all, changes)
		default:
			d.rest(ctx, changed, idle)
		}
	}
}

// rest waits until there may be something to tell.
func (d *directories) rest(ctx context.Context, changed <-chan struct{}, idle time.Duration) {
	if idle == 0 || idle > tellStep {
		idle = tellStep
	}
	t := time.NewTimer(idle)
	defer t.Stop()
	select {
	case <-changed:
	case <-d.out.More():
	case <-t.C:
	case <-ctx.Done():
	}
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
			owners = append(owners, directory.Owner{ID: one.ID, Boot: one.Epoch, Up: one.Up && d.client.Healthy(one.ID)})
		}
	}
	d.out.See(v.Ring.Hash(), owners)
	for id, boot := range d.boots {
		if alive[id] != boot { // what it gets while it is away it tells nobody
			d.here.Doubt(id)
		}
	}
	d.boots = alive
	d.here.Keep(func(id string) bool { // the View may not have one yet that has told something
		_, is := d.members.Member(id)
		return is
	})
}

// listed waits for a while until it is known what the shards hold, and reports whether it is.
func (d *directories) listed(ctx context.Context) bool {
	for _, shard := range d.shards() {
		if !isListed(ctx, shard) {
			return false
		}
	}
	return true
}

// tell tells some members all that is theirs, and others what has changed of that.
func (d *directories) tell(ctx context.Context, v *membership.View, all, changes []string) {
	sessions, keys := map[string]uint64{}, map[string][]directory.Key{}
	for _, id := range all {
		sessions[id] = d.out.Begin(id)
	}
	if len(all) > 0 {
		d.list(v, sessions, keys)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) // so that not all members begin with the same
	var wg sync.WaitGroup
	width := make(chan struct{}, tellWidth)
	inTurn := func(do func()) {
		width <- struct{}{}
		wg.Go(func() {
			defer func() { <-width }()
			do()
		})
	}
	for _, id := range changes {
		inTurn(func() {
			if m := d.out.Changes(id); m != nil {
				d.out.Told(id, m.Session, d.send(ctx, id, m))
			}
		})
	}
	for _, id := range all {
		inTurn(func() { d.tellAll(ctx, id, sessions[id], keys[id]) })
	}
	wg.Wait()
}

// list lists what the shards hold, by the owners that have a session.
func (d *directories) list(v *membership.View, sessions map[string]uint64, keys map[string][]directory.Key) {
	for _, shard := range d.shards() {
		shard.Stock().Each(func(_ string, blob digest.Digest) {
			owner := v.Ring.Owner(blob.String()).ID
			if k, ok := directory.KeyOf(blob.String()); ok && sessions[owner] != 0 {
				keys[owner] = append(keys[owner], k)
			}
		})
	}
}

// tellAll tells a member all that is its own, in a session.
func (d *directories) tellAll(ctx context.Context, id string, session uint64, keys []directory.Key) {
	well := session != 0
	for _, m := range d.out.All(id, session, keys) {
		if well = d.send(ctx, id, m); !well {
			break
		}
	}
	d.out.Told(id, session, well)
}

// send sends a message, and reports whether the member has heard it, and all before it.
func (d *directories) send(ctx context.Context, id string, m *directory.Message) bool {
	again, err := peer.TellDirectory(ctx, d.client, id, m.Encode(), tellTime)
	return err == nil && !again
}
