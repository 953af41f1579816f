package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"oci-proxy/node/config"
)

// statusTimeout is how long a node may take to describe its cluster: it asks the
// other members first, for about a second.
const statusTimeout = 5 * time.Second

// A clusterAnswer is the part of /_/cluster's answer that is printed.
type clusterAnswer struct {
	Ring    string
	Members []memberAnswer
	Missing []struct{ Name, Reason string }
}

// status asks a node for its cluster, and prints it.
func status(ctx context.Context, args []string, s streams) error {
	t, err := parseTarget("status", args, s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	body, err := t.ask(ctx, http.MethodGet, "/_/cluster")
	if err != nil {
		return fmt.Errorf("asking %s for its cluster: %w", t.addr, err)
	}
	var c clusterAnswer
	if err := json.Unmarshal(body, &c); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", t.addr, err)
	}
	return c.print(s.out)
}

// A memberAnswer is the part of a member that is printed.
type memberAnswer struct {
	Name, State, Peer, Zone, Version string
	Share                            float64
	Self, Healthy                    bool
	Stats                            *struct {
		Registries map[string]struct{ Hits, PeerHits, Misses, Items, CurrentSize int64 }
		MaxSize    int64 `json:"max_size"`
	}
}

// print prints a line for each member.
func (c *clusterAnswer) print(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "NODE\tSTATE\tSHARE\tBLOBS\tHELD\tBOUND\tHITS\tPEER HITS\tMISSES\tHIT RATIO\tPEERS' ADDRESS\tZONE\tVERSION")
	for _, m := range c.Members {
		state, name := m.State, m.Name
		if !m.Healthy && state != "down" && state != "gone" {
			state += ", quarantined"
		}
		if m.Self {
			name += " (this node)"
		}
		fmt.Fprintf(tab, "%s\t%s\t%.1f %%\t%s\t%s\t%s\t%s\n", name, state, 100*m.Share, m.figures(),
			cmp.Or(m.Peer, "-"), cmp.Or(m.Zone, "-"), cmp.Or(m.Version, "-"))
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	for _, m := range c.Missing {
		fmt.Fprintf(w, "%s did not answer: %s\n", m.Name, m.Reason)
	}
	return nil
}

// figures returns a member's totals over its registries, as columns.
func (m *memberAnswer) figures() string {
	if m.Stats == nil {
		return "-\t-\t-\t-\t-\t-\t-"
	}
	var hits, peerHits, misses, items, size int64
	for _, r := range m.Stats.Registries {
		hits += r.Hits
		peerHits += r.PeerHits
		misses += r.Misses
		items += r.Items
		size += r.CurrentSize
	}
	bound, ratio := "none", "-"
	if m.Stats.MaxSize > 0 {
		bound = config.FormatSize(m.Stats.MaxSize)
	}
	if all := hits + peerHits + misses; all > 0 {
		ratio = fmt.Sprintf("%.1f %%", 100*float64(hits+peerHits)/float64(all))
	}
	return fmt.Sprintf("%d\t%s\t%s\t%d\t%d\t%d\t%s", items, config.FormatSize(size), bound, hits, peerHits, misses, ratio)
}
