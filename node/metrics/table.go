package metrics

import (
	"oci-proxy/node/figures"
)

// A sample is one value of a metric.
type sample struct {
	value  float64
	labels []string
}

// A metric is one that is read from a Snapshot.
type metric struct {
	family
	values func(s *Snapshot) []sample
}

// table lists the metrics that are read.
var table = []metric{
	bySource("requests_total", "Requests of clients for blobs, and for manifests by digest. Source: hit (own disk), peer (another member's disk) or miss.",
		from{"hit", figures.Hits}, from{"peer", figures.PeerHits}, from{"miss", figures.Misses}),
	bySource("sent_bytes_total", "Bytes of content sent to clients, counted while they flow. Source likewise.",
		from{"hit", figures.HitBytes}, from{"peer", figures.PeerHitBytes}, from{"miss", figures.MissBytes}),
	bySource("received_bytes_total", "Bytes of blobs received: from upstream, from a peer, or from the bucket of the archive.",
		from{"upstream", figures.FromUpstreamBytes}, from{"peer", figures.FromPeersBytes}, from{"archive", figures.FromArchiveBytes}),
	byRegistry("sent_to_peers_bytes_total", counter, "Bytes of blobs sent to other members.", figures.ToPeersBytes),
	byRegistry("resumes_total", counter, "Downloads that broke off and were taken up again.", figures.Resumes),
	{family{"evictions_total", counter, []string{"registry", "cause"}, "Blobs evicted. Cause: bound (cache_max_size), registry_bound (the registry's own), disk_full, or idle (max_idle)."}, evictions},
	byRegistry("shard_blobs", gauge, "Blobs on this node's disk.", figures.Items),
	byRegistry("shard_bytes", gauge, "Bytes of content on this node's disk.", figures.CurrentSize),
	byRegistry("shard_bound_bytes", gauge, "Bound of that in bytes. 0: none.", figures.MaxSize),
	{family{"disk_free_bytes", gauge, []string{"cache_dir"}, "Bytes that are free on the disk of a cache directory, looked at every 5 seconds."}, disks},
	{family{"verified_bytes_total", counter, []string{"where"}, "Bytes found right. Where: network (a download's digest) or disk (the sums of what is served)."}, verified(func(v Verified) int64 { return v.Right })},
	{family{"bad_bytes_total", counter, []string{"where"}, "Bytes found wrong, likewise. They were not served, and what held them is fetched again."}, verified(func(v Verified) int64 { return v.Bad })},
	{family{"upstream_up", gauge, []string{"registry", "host"}, "1 while a configured registry, or a mirror of it, answers, otherwise 0."}, byUpstream(func(u Upstream) (float64, bool) { return bit(u.Up), true })},
	{family{"upstream_rate_limit", gauge, []string{"registry", "host"}, "Its rate limit in requests, as it last said. Missing if it says none, or if that window is over."}, byQuota(func(q *Quota) float64 { return float64(q.Limit) })},
	{family{"upstream_rate_limit_remaining", gauge, []string{"registry", "host"}, "Requests that are left of it."}, byQuota(func(q *Quota) float64 { return float64(q.Remaining) })},
	{family{"upstream_rate_limit_reset_timestamp_seconds", gauge, []string{"registry", "host"}, "When all of it is there again, in seconds since 1970."}, byQuota(func(q *Quota) float64 { return float64(q.Reset.UnixMilli()) / 1000 })},
	{family{"upstream_turns", gauge, []string{"registry", "state"}, "Requests to a registry that are active, and those that are waiting for their turn."}, turns},
	single("flights", gauge, "Downloads of blobs under way.", func(s *Snapshot) int64 { return int64(s.Flights) }),
	single("flight_followers", gauge, "Requests that wait for these downloads or read from them.", func(s *Snapshot) int64 { return int64(s.Followers) }),
	{family{"peers_passed_over_total", counter, []string{"reason"}, "Members that could not help with a request, so that the next source was asked. Reason: failed, hangs, slow, lies, busy, lacks (it does not have it), registry (the registry fails there) or no_way (it does not reach the registry)."}, byName(func(s *Snapshot) map[string]int64 { return s.PeersPassed })},
	single("members_sent_on_total", counter, "Members that asked this node for a large blob and were sent on to another, which gets it or has it by now.", func(s *Snapshot) int64 { return s.SentOn }),
	{family{"feeders_left_total", counter, []string{"reason"}, "Members that fed this node a large blob, or were to, and were left for another. Reason: as above; failed: it may have left its own feeder; slow: others were fed far faster; lacks: it has it no more."}, byName(func(s *Snapshot) map[string]int64 { return s.FeedersLeft })},
	single("peers_quarantined", gauge, "Members that failed, and are not asked until they answer a ping.", func(s *Snapshot) int64 { return int64(s.Quarantined) }),
	{family{"second_copies_total", counter, []string{"what"}, "Blobs that only this node held and that were offered to another member: it took them (made), or no member did (failed): mostly because they have no room beside what they keep."}, byName(func(s *Snapshot) map[string]int64 { return s.Copies })},
	single("second_copies_bytes_total", counter, "Bytes of those that were taken.", func(s *Snapshot) int64 { return s.CopiedBytes }),
	single("second_copies_waiting", gauge, "Blobs that are still to be looked at: new ones, those that a lost member held too, and after a change of the ring all that this node holds.", func(s *Snapshot) int64 { return s.CopiesWaiting }),
	single("directory_entries", gauge, "Blobs of this node's that other members said they hold, once for each of those members (up to eight); 524,288 at most.", func(s *Snapshot) int64 { return s.Directory.Entries }),
	single("directory_bytes", gauge, "Memory of that.", func(s *Snapshot) int64 { return s.Directory.Bytes }),
	single("directory_members_told", gauge, "Members that have told this node all that they hold of its blobs. In a cluster of more than 128 members all are asked for each blob while this is less than the number of the others.", func(s *Snapshot) int64 { return s.Directory.Members }),
	{family{"members", gauge, []string{"state"}, "Members of the cluster, this node included: active, restarting, draining or down. Gone: died, and listed for a day."}, byName(func(s *Snapshot) map[string]int64 { return s.Members })},
	single("ring_version", gauge, "A number that is equal on all nodes that place keys alike.", func(s *Snapshot) int64 { return int64(s.Ring >> 16) }), // a float has 53 bits
	single("ring_disagreeing_members", gauge, "Members that said, when they were last asked, that they place keys otherwise. 0: all agree.", func(s *Snapshot) int64 { return int64(s.Disagreeing) }),
	single("kept_lists_bytes", gauge, "Bytes of lists kept on this node's disk for when a registry fails.", func(s *Snapshot) int64 { return s.KeptLists }),
	single("kept_lists_bound_bytes", gauge, "Bound of that in bytes.", func(s *Snapshot) int64 { return s.KeptBound }),
	{family{"archive_objects_total", counter, []string{"what"}, "Objects of the archive that this node found in the bucket, put there, or did not put: because the bucket had them, it failed, or too many waited, or it left the cache meanwhile (dropped)."}, byName(func(s *Snapshot) map[string]int64 { return s.Archive })},
	single("client_connections", gauge, "Open connections of clients.", func(s *Snapshot) int64 { return int64(s.Connections) }),
	{family{"pulls", gauge, []string{"state"}, "Pulls that are active, and those that are waiting for their turn."}, func(s *Snapshot) []sample { return s.Pulls.samples() }},
	single("pulls_refused_total", counter, "Pulls that got no turn within queue_timeout.", func(s *Snapshot) int64 { return s.PullsRefused }),
	single("failed_logins_total", counter, "Logins that were wrong, or not checked after too many wrong ones.", func(s *Snapshot) int64 { return s.FailedLogins }),
	{family{"degraded", gauge, nil, "1 while /_/health says degraded, otherwise 0."}, func(s *Snapshot) []sample {
		for _, is := range s.Broken {
			if is {
				return []sample{{value: 1}}
			}
		}
		return []sample{{}}
	}},
	{family{"degraded_reason", gauge, []string{"reason"}, "1 while that is broken, otherwise 0. Reason: a code of /_/health."}, func(s *Snapshot) (out []sample) {
		for reason, is := range s.Broken {
			out = append(out, sample{bit(is), []string{reason}})
		}
		return out
	}},
	{family{"ready", gauge, nil, "1 while /_/ready answers 200, otherwise 0."}, func(s *Snapshot) []sample { return []sample{{value: bit(s.Ready)}} }},
}

// bit is 1 for true.
func bit(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// single is a metric with one value.
func single(name string, of kind, help string, value func(s *Snapshot) int64) metric {
	return metric{family{name, of, nil, help}, func(s *Snapshot) []sample { return []sample{{value: float64(value(s))}} }}
}

// byRegistry is a metric with a value for each registry.
func byRegistry(name string, of kind, help string, f figures.Figure) metric {
	return metric{family{name, of, []string{"registry"}, help}, func(s *Snapshot) (out []sample) {
		for registry, r := range s.Registries {
			out = append(out, sample{float64(r[f]), []string{registry}})
		}
		return out
	}}
}

// from is a figure of what came from one source.
type from struct {
	source string
	figure figures.Figure
}

// bySource is a counter with a value for each registry and source.
func bySource(name, help string, sources ...from) metric {
	return metric{family{name, counter, []string{"registry", "source"}, help}, func(s *Snapshot) (out []sample) {
		for registry, r := range s.Registries {
			for _, one := range sources {
				out = append(out, sample{float64(r[one.figure]), []string{registry, one.source}})
			}
		}
		return out
	}}
}

// byName returns a value for each name.
func byName(of func(s *Snapshot) map[string]int64) func(s *Snapshot) []sample {
	return func(s *Snapshot) (out []sample) {
		for name, n := range of(s) {
			out = append(out, sample{float64(n), []string{name}})
		}
		return out
	}
}

// evictions are those of each registry and cause.
func evictions(s *Snapshot) (out []sample) {
	for registry, causes := range s.Evictions {
		for cause, n := range causes {
			out = append(out, sample{float64(n), []string{registry, cause}})
		}
	}
	return out
}

// disks are the free bytes of each.
func disks(s *Snapshot) (out []sample) {
	for _, d := range s.Disks {
		out = append(out, sample{float64(d.Free), []string{d.Dir}})
	}
	return out
}

// verified returns a value for each place where bytes are verified.
func verified(of func(Verified) int64) func(s *Snapshot) []sample {
	return func(s *Snapshot) (out []sample) {
		for _, v := range s.Verified {
			out = append(out, sample{float64(of(v)), []string{v.Where}})
		}
		return out
	}
}

// byUpstream returns a value for each registry that is configured, and each mirror, if there
// is one.
func byUpstream(of func(Upstream) (value float64, ok bool)) func(s *Snapshot) []sample {
	return func(s *Snapshot) (out []sample) {
		for _, u := range s.Upstreams {
			if v, ok := of(u); ok {
				out = append(out, sample{v, []string{u.Registry, u.Host}})
			}
		}
		return out
	}
}

// byQuota is byUpstream for those that tell a rate limit.
func byQuota(of func(*Quota) float64) func(s *Snapshot) []sample {
	return byUpstream(func(u Upstream) (float64, bool) {
		if u.Quota == nil {
			return 0, false
		}
		return of(u.Quota), true
	})
}

// turns are those of each registry.
func turns(s *Snapshot) (out []sample) {
	for registry, t := range s.Turns {
		for _, one := range t.samples() {
			out = append(out, sample{one.value, append([]string{registry}, one.labels...)})
		}
	}
	return out
}

// samples are the turns by state.
func (t Turns) samples() []sample {
	return []sample{{float64(t.Active), []string{"active"}}, {float64(t.Waiting), []string{"waiting"}}}
}
