package node

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"oci-proxy/node/figures"
	"oci-proxy/node/live"
	"oci-proxy/transfer"
	"oci-proxy/transfer/oci"
)

// maxInFlight bounds the requests that are looked at for those who watch.
const maxInFlight = 4096

// inFlight lists what is on its way, the earliest first: the downloads, and what clients are
// sent or wait for that no download under way brings.
func (p *reports) inFlight() []live.Pull {
	rows := map[oci.Ref]*live.Pull{}
	downloads := map[oci.Content]bool{}
	for _, d := range p.fetcher.Downloads() {
		downloads[d.Ref.Content()] = true
		row := downloading(d)
		if other := rows[d.Ref]; other == nil || other.Done < row.Done {
			rows[d.Ref] = &row
		}
	}
	for i, one := range p.pulls.now() {
		if ref := one.request.Ref; i < maxInFlight && one.body && !downloads[ref.Content()] {
			merge(rows, ref, one.row())
		}
	}
	out := make([]live.Pull, 0, len(rows))
	for _, row := range rows {
		out = append(out, *row)
	}
	slices.SortFunc(out, func(a, b live.Pull) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Repository, b.Repository), strings.Compare(a.Digest, b.Digest))
	})
	return out
}

// downloading is the row of a download.
func downloading(d transfer.Download) live.Pull {
	row := rowOfPull(d.Ref, "blob", d.Began)
	row.Done, row.Total, row.Waiters = d.Done, d.Size, d.Aboard
	if d.Size >= 0 || d.Done > 0 {
		row.Source, row.Host = d.From.Origin.String(), d.From.Host
	}
	return row
}

// row is the row of one request.
func (one *answering) row() live.Pull {
	row := rowOfPull(one.request.Ref, pullKind(&one.request), one.began)
	row.Waiters = 1
	if way := one.way.Load(); way != nil {
		row.Source, row.Host = source(way), way.Host
		row.Total = one.size.Load()
		if one.sent != nil {
			row.Done = one.sent.Sent()
		}
	}
	return row
}

// rowOfPull is a row of what nothing came of yet.
func rowOfPull(ref oci.Ref, kind string, since time.Time) live.Pull {
	return live.Pull{
		Registry: ref.Registry, Repository: ref.Repository, Tag: ref.Tag, Digest: ref.Digest.String(), Kind: kind,
		Source: live.Waiting, Total: -1, Since: since.UTC(),
	}
}

// merge adds the row of a request to that of others that want the same. What is told is how far
// the one is that is furthest.
func merge(rows map[oci.Ref]*live.Pull, ref oci.Ref, one live.Pull) {
	all := rows[ref]
	switch {
	case all == nil:
		rows[ref] = &one
		return
	case all.Source == live.Waiting || one.Source != live.Waiting && one.Done > all.Done:
		one.Waiters, one.Since = all.Waiters, earlier(one.Since, all.Since)
		*all = one
	default:
		all.Since = earlier(one.Since, all.Since)
	}
	all.Waiters++
}

// earlier is the earlier of two times.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// A tally is what this node counts, for those who watch. Names are outward. Bytes and requests
// are since it started.
type tally struct {
	Time          time.Time `json:"time"`
	Pulls         int64     `json:"pulls"`     // requests of pulls that are being answered
	Waiting       int       `json:"waiting"`   // of them, those that wait for their turn
	Downloads     int       `json:"downloads"` // under way
	Hits          int64     `json:"hits"`
	PeerHits      int64     `json:"peer_hits"`
	Misses        int64     `json:"misses"`
	HitBytes      int64     `json:"hit_bytes"`
	PeerHitBytes  int64     `json:"peer_hit_bytes"`
	MissBytes     int64     `json:"miss_bytes"`
	FromUpstream  int64     `json:"from_upstream_bytes"`
	FromPeers     int64     `json:"from_peers_bytes"`
	FromArchive   int64     `json:"from_archive_bytes"`
	ToPeers       int64     `json:"to_peers_bytes"`
	CurrentSize   int64     `json:"current_size"`
	MaxSize       int64     `json:"max_size"`
	FreeOnDisk    *int64    `json:"disk_free"` // null: not known
	UptimeSeconds int64     `json:"uptime_seconds"`
}

// served is what was counted since start, of all registries.
func (p *reports) served() (sum figures.Registry) {
	for _, c := range p.fetcher.Counters() {
		sum.Count(c)
	}
	return sum
}

// sent is what the hour is told of: bytes since start.
func (p *reports) sent() (m figures.Minute) {
	sum := p.served()
	m[figures.HitSent], m[figures.PeerHitSent], m[figures.MissSent] = sum[figures.HitBytes], sum[figures.PeerHitBytes], sum[figures.MissBytes]
	m[figures.UpstreamBytes] = sum[figures.FromUpstreamBytes]
	return m
}

// tally counts.
func (p *reports) tally() tally {
	g, sum := p.gate.Figures(), p.served()
	t := tally{
		Time: time.Now().UTC(), Pulls: p.pulls.underWay(), Waiting: g.Waiting, UptimeSeconds: int64(time.Since(p.began).Seconds()),
		Hits: sum[figures.Hits], PeerHits: sum[figures.PeerHits], Misses: sum[figures.Misses],
		HitBytes: sum[figures.HitBytes], PeerHitBytes: sum[figures.PeerHitBytes], MissBytes: sum[figures.MissBytes],
		FromUpstream: sum[figures.FromUpstreamBytes], FromPeers: sum[figures.FromPeersBytes], FromArchive: sum[figures.FromArchiveBytes], ToPeers: sum[figures.ToPeersBytes],
	}
	t.Downloads, _ = p.fetcher.Flights()
	for _, shard := range p.registries.Shards() {
		t.MaxSize += shard.Bound()
		for _, s := range shard.Stats() {
			t.CurrentSize += s.Bytes
		}
	}
	for _, d := range p.disks() {
		if t.FreeOnDisk == nil || d.Free < *t.FreeOnDisk {
			t.FreeOnDisk = &d.Free
		}
	}
	return t
}
