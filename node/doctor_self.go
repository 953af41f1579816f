package node

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"oci-proxy/node/cluster"
	"oci-proxy/transfer/upstream"
)

// self makes the steps of the node itself: its health, its disks, its registries, its
// seeds, and its way to the other members.
func (d *doctor) self(ctx context.Context) []step {
	var out []step
	degraded := reasons(d.reports.broken(), true)
	for _, r := range degraded {
		out = append(out, d.stepOf("node", "health", wrong("%s", r)))
	}
	switch {
	case !d.reports.ready.Load():
		out = append(out, d.stepOf("node", "health", doubtful("it is not ready: it starts, or drains")))
	case len(degraded) == 0:
		out = append(out, d.stepOf("node", "health", fine("healthy, up for %s", time.Since(d.reports.began).Round(time.Second))))
	}
	looked := make(chan []step, 1)
	go func() { looked <- d.world(ctx) }()
	reached := d.reach(ctx)
	out = append(out, <-looked...)
	for _, s := range d.upstream.Standings() {
		if s.State == upstream.Limited {
			out = append(out, d.stepOf(s.Host, "registry", wrong("it asks to be left alone, for %s now: %s", time.Since(s.Since).Round(time.Second), s.LastError)))
		}
	}
	return append(out, reached...)
}

// world looks at what the config names, as check -live does.
func (d *doctor) world(ctx context.Context) (out []step) {
	client, err := d.quiet()
	if err != nil {
		return []step{d.stepOf("node", "config", wrong("%s", err))}
	}
	defer client.Close()
	disks, registries, seeds := diskInspections(d.registries.cfg()), registryInspections(d.registries.cfg(), client, d.reports.used), seedInspections(d.registries.cfg())
	for i, f := range lookAt(ctx, append(append(disks, registries...), seeds...)) {
		switch {
		case i < len(disks):
			out = append(out, d.stepOf("node", "disk", f))
		case i < len(disks)+len(registries):
			host := strings.TrimPrefix(f.Keys[0], "registries.")
			s := d.stepOf(host, "registry", f)
			if f.Level == Wrong {
				s.Advice = "oci-proxy doctor " + host + " shows the step that fails"
			}
			out = append(out, s)
		default:
			out = append(out, d.stepOf("cluster", "seed", f))
		}
	}
	return out
}

// reach looks at the ports of the other members, as they are reached from here: the one
// for peers by a request that is signed, the one of gossip by TCP.
func (d *doctor) reach(ctx context.Context) (out []step) {
	said := d.cluster.Reports(ctx)
	errs := make([]error, len(said))
	ctx, cancel := context.WithTimeout(ctx, seedTime)
	defer cancel()
	var dials sync.WaitGroup
	for i, one := range said {
		if one.Member.Alive() {
			dials.Go(func() { errs[i] = tryDial(ctx, one.Member.Gossip) })
		}
	}
	dials.Wait()
	well := 0
	for i, one := range said {
		if !one.Member.Alive() {
			continue // the cluster's step tells
		}
		if one.Err == nil && errs[i] == nil {
			well++
			continue
		}
		out = append(out, d.unreached(one, errs[i])...)
	}
	if well > 0 {
		out = append(out, d.stepOf("cluster", "ports", fine("%d other members answer at their ports for peers and gossip", well)))
	}
	return out
}

// unreached are the steps about a member that does not answer at a port.
func (d *doctor) unreached(one cluster.Report, gossip error) (out []step) {
	if one.Err != nil {
		s := d.stepOf("cluster", "ports", wrong("%s does not answer at its port for peers, %s: %s", one.Member.Name, one.Member.Peer, one.Err))
		s.Advice = fmt.Sprintf("open TCP %s from this node to it, and look whether it is overloaded", portOf(one.Member.Peer))
		out = append(out, s)
	}
	if gossip != nil {
		s := d.stepOf("cluster", "ports", wrong("%s does not answer at its port of gossip, %s: %s", one.Member.Name, one.Member.Gossip, reasonOf(gossip)))
		s.Advice = fmt.Sprintf("open TCP and UDP %s from this node to it", portOf(one.Member.Gossip))
		out = append(out, s)
	}
	return out
}

// portOf is the port of an address.
func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
