package node

import (
	"slices"
	"time"

	"oci-proxy/cache"
	"oci-proxy/node/cluster"
	"oci-proxy/node/figures"
	"oci-proxy/node/health"
	"oci-proxy/node/metrics"
	"oci-proxy/transfer/archive"
	"oci-proxy/transfer/upstream"
)

// snapshot is what the other rooms count, for Prometheus. It asks nobody and waits for no
// disk.
func (p *reports) snapshot() *metrics.Snapshot {
	g, agreed, lists := p.gate.Figures(), cluster.AgreementOf(p.cluster), p.registries.keptLists()
	s := &metrics.Snapshot{
		Registries: p.labelled(), Evictions: p.evictions(), Turns: p.turns(), Upstreams: p.quotas(), Disks: p.disks(), Verified: p.verified(),
		Members: p.cluster.States(), Ring: agreed.Ring, Disagreeing: agreed.Disagreeing, Quarantined: agreed.Quarantined, PeersPassed: p.fetcher.PeersPassed(),
		Pulls: metrics.Turns{Active: g.Pulls, Waiting: g.Waiting}, PullsRefused: g.Refused, FailedLogins: g.FailedLogins, Connections: g.Connections,
		KeptLists: lists.bytes, KeptBound: lists.bound, Archive: p.archived(), Broken: map[string]bool{}, Ready: p.ready.Load(),
	}
	copies := cluster.CopiesOf(p.cluster)
	s.Copies, s.CopiedBytes, s.CopiesWaiting = map[string]int64{"made": copies.Made, "failed": copies.Failed}, copies.Bytes, copies.Waiting
	s.Directory = p.directory()
	s.SentOn, s.FeedersLeft = p.fetcher.SentOn(), p.fetcher.FeedersLeft()
	s.Flights, s.Followers = p.fetcher.Flights()
	for _, code := range health.Codes() {
		s.Broken[string(code)] = false
	}
	for _, code := range health.CodesOf(p.broken()) {
		s.Broken[string(code)] = true
	}
	return s
}

// directory is how large the directory is of who holds this node's blobs.
func (p *reports) directory() figures.Directory {
	d := cluster.DirectoryOf(p.cluster)
	return figures.Directory{Entries: int64(d.Entries), Bytes: int64(d.Bytes), Members: int64(d.Members)}
}

// archived is what the archive counts.
func (p *reports) archived() map[string]int64 {
	var f archive.Figures
	if p.archive != nil {
		f = p.archive.Figures()
	}
	return map[string]int64{"found": f.Found, "put": f.Put, "had": f.Had, "failed": f.Failed, "dropped": f.Dropped}
}

// labelled are the figures of the configured registries, and of all others together.
func (p *reports) labelled() map[string]*figures.Registry {
	out := map[string]*figures.Registry{}
	for registry, r := range p.byRegistry() {
		label := p.registries.label(registry)
		if out[label] == nil {
			out[label] = new(figures.Registry)
		}
		out[label].Add(r)
	}
	if others := out[metrics.Other]; others != nil {
		others[figures.MaxSize] = p.registries.bound("") // they share it
	}
	return out
}

// evictions are those of each registry by cause.
func (p *reports) evictions() map[string]map[string]int64 {
	out := map[string]map[string]int64{}
	add := func(registry string, of cache.Stats) {
		label := p.registries.label(registry)
		if out[label] == nil {
			out[label] = map[string]int64{}
		}
		for cause, n := range of.Evictions {
			out[label][cache.Cause(cause).String()] += int64(n)
		}
	}
	for _, registry := range p.registries.configured() {
		add(registry, cache.Stats{})
	}
	for _, shard := range p.registries.Shards() {
		for registry, of := range shard.Stats() {
			add(registry, of)
		}
	}
	return out
}

// turns are those of the configured registries and their mirrors, and of all others together.
func (p *reports) turns() map[string]metrics.Turns {
	out := map[string]metrics.Turns{}
	mirrors := unlisted(p.registries.cfg())
	for _, s := range p.upstream.Standings() {
		label := p.registries.label(s.Host)
		if slices.Contains(mirrors, s.Host) {
			label = s.Host
		}
		t := out[label]
		out[label] = metrics.Turns{Active: t.Active + s.Active, Waiting: t.Waiting + s.Waiting}
	}
	return out
}

// quotas are how the configured registries and their mirrors do.
func (p *reports) quotas() (out []metrics.Upstream) {
	for _, row := range p.standings.configured() {
		out = append(out, metrics.Upstream{Registry: row.Registry, Host: row.Host, Up: row.State == upstream.Up, Quota: row.quota(time.Now())})
	}
	return out
}

// quota is the rate limit that counts at that time, nil if none is known: what was left in a
// window that is over says nothing.
func (row *upstreamRow) quota(now time.Time) *metrics.Quota {
	if row.RateLimit == nil || !now.Before(*row.RateReset) {
		return nil
	}
	return &metrics.Quota{Limit: *row.RateLimit, Remaining: *row.RateRemaining, Reset: *row.RateReset}
}

// disks are those of the cache directories.
func (p *reports) disks() (out []metrics.Disk) {
	for _, dir := range p.registries.dirs() {
		if free, ok := p.registries.shards[dir].Free(); ok {
			out = append(out, metrics.Disk{Dir: dir, Free: free})
		}
	}
	return out
}

// verified is what all shards have verified.
func (p *reports) verified() []metrics.Verified {
	network, disk := metrics.Verified{Where: "network"}, metrics.Verified{Where: "disk"}
	for _, shard := range p.registries.Shards() {
		incoming, held := shard.Verified()
		network.Right += incoming.Right
		network.Bad += incoming.Bad
		disk.Right += held.Right
		disk.Bad += held.Bad
	}
	return []metrics.Verified{network, disk}
}
