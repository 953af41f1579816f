package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// skewDoubtful is how far clocks may differ before it is told, and skewWrong before it
	// is a fault: tokens and signed links end by the clock.
	skewDoubtful = 2 * time.Second
	skewWrong    = 30 * time.Second
)

// compare makes the steps that take all members: who does not answer; and of the cluster
// itself its members, clocks, versions, secrets and rings.
func (d *doctor) compare(ctx context.Context, to aim, own opinion, members []consulted) (out []step) {
	add := func(what, advice string, f Finding) {
		out = append(out, step{About: "cluster", Step: what, Level: f.Level, Text: f.Text, Advice: advice})
	}
	looked := slices.ContainsFunc(own.Steps, func(s step) bool { return s.Level != Skipped })
	for _, m := range members {
		looked = looked || slices.ContainsFunc(m.said.Steps, func(s step) bool { return s.Level != Skipped })
		if m.Err != nil && m.Member.Alive() {
			advice := ""
			if m.Member.Version != Version {
				advice = "it runs version " + m.Member.Version + ": an earlier one can't be asked"
			}
			add("members", advice, wrong("%s did not say what it sees: %s", m.Member.Name, m.Err))
		}
	}
	if to.registry != "" {
		if !looked {
			add("rules", "let a node ask it: cluster.egress, offline, whitelist_mode", wrong("no member may ask this registry"))
		}
		return out
	}
	if d.registries.cfg().Cluster == nil {
		return out
	}
	d.members(ctx, add)
	clocks(members, add)
	agreement(d.registries.cfg().Cluster.Name, own, members, add)
	return out
}

// members adds the steps about the members' states, versions and secrets.
func (d *doctor) members(ctx context.Context, add func(what, advice string, f Finding)) {
	up, versions, old := 0, map[string][]string{}, []string(nil)
	for _, m := range d.cluster.Describe(ctx).Members {
		age := time.Since(m.Since).Round(time.Second)
		switch m.State {
		case "active":
			up++
		case "down":
			add("members", "start it again; after two minutes it loses its place", wrong("%s is down, for %s", m.Name, age))
		case "gone":
			add("members", "oci-proxy forget "+m.Name+" if it does not come back", doubtful("%s died and has lost its place, %s ago", m.Name, age))
		default:
			add("members", "", doubtful("%s is %s", m.Name, m.State))
		}
		if m.State != "gone" && m.State != "down" {
			versions[m.Version] = append(versions[m.Version], m.Name)
		}
		if m.OldSecret {
			old = append(old, m.Name)
		}
	}
	if up == 1 && len(d.registries.cfg().Cluster.Seeds) > 0 {
		add("members", "the first node of a cluster is alone; any other must have the same secret and cluster.id as its seeds, and reach them", doubtful("this node meets no other member, and has seeds"))
	} else {
		add("members", "", fine("%d active", up))
	}
	if len(versions) > 1 {
		var all []string
		for v, names := range versions {
			all = append(all, v+" ("+strings.Join(names, ", ")+")")
		}
		slices.Sort(all)
		add("versions", "finish the upgrade", doubtful("the members run different versions: %s", strings.Join(all, "; ")))
	} else {
		add("versions", "", fine("all run version %s", Version))
	}
	if len(old) > 0 {
		add("secrets", "give them the new secret, and reload them, before the old one is taken away", doubtful("these members do not accept the first secret: %s", strings.Join(old, ", ")))
	} else {
		add("secrets", "", fine("all accept the first of this node's secrets"))
	}
}

// clocks adds the step about the members' clocks. Each tells when it began and ended to
// look; half of what question and answer took on the way is the doubt.
func clocks(members []consulted, add func(what, advice string, f Finding)) {
	var wrongs []string
	worst, asked := time.Duration(0), 0
	for _, m := range members {
		if m.Err != nil || m.said.Began.IsZero() || m.said.Ended.IsZero() {
			continue
		}
		asked++
		skew, doubt := skewOf(m)
		if skew.Abs() <= doubt+skewDoubtful {
			worst = max(worst, skew.Abs())
			continue
		}
		word := "ahead"
		if skew < 0 {
			word = "behind"
		}
		worst = max(worst, skew.Abs())
		wrongs = append(wrongs, fmt.Sprintf("the clock of %s is %s %s", m.Member.Name, skew.Abs().Round(100*time.Millisecond), word))
	}
	text := strings.Join(wrongs, "; ")
	switch {
	case asked == 0:
	case text == "":
		add("clocks", "", fine("those of %d other members are within %s of this one", asked, max(worst, time.Millisecond).Round(time.Millisecond)))
	case worst > skewWrong:
		add("clocks", "set the clocks by NTP: certificates, tokens and signed links end by them", wrong("%s", text))
	default:
		add("clocks", "set the clocks by NTP", doubtful("%s", text))
	}
}

// skewOf is how far a member's clock is ahead of this one, and how far that may be wrong
// (RFC 5905, section 8).
func skewOf(m consulted) (skew, doubt time.Duration) {
	out, back := m.said.Began.Sub(m.Asked), m.said.Ended.Sub(m.Came)
	way := m.Came.Sub(m.Asked) - m.said.Ended.Sub(m.said.Began)
	return (out + back) / 2, max(way, 0) / 2
}

// agreement adds the step about how the members place keys.
func agreement(name string, own opinion, members []consulted, add func(what, advice string, f Finding)) {
	var others []string
	for _, m := range members {
		if m.Err == nil && m.said.Ring != "" && m.said.Ring != own.Ring {
			others = append(others, m.Member.Name)
		}
	}
	if len(others) > 0 {
		add("ring", "the cluster is split, or changes just now: look again, and at the seeds", doubtful("these members place keys otherwise than %s: %s", name, strings.Join(others, ", ")))
		return
	}
	add("ring", "", fine("all that answer place keys alike"))
}
