package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// An upstreamStatus is how a registry or a mirror does, as /_/upstreams has it. What
// members tell of those that fail them has its first five fields.
type upstreamStatus struct {
	Registry      string     `json:"registry"`
	Host          string     `json:"host"`
	State         string     `json:"state"`
	Since         time.Time  `json:"since"`
	LastError     string     `json:"last_error"`
	LatencyMS     int64      `json:"latency_ms"`
	RateLimit     *int64     `json:"rate_limit"`
	RateRemaining *int64     `json:"rate_remaining"`
	RateReset     *time.Time `json:"rate_reset"`
}

// A failure is a registry or a mirror that fails members in the same way.
type failure struct {
	upstreamStatus          // as the first of them tells it, since the earliest time
	at             []string // their names
}

// failing tells which registries and mirrors fail which members.
func failing(members []memberAnswer, now time.Time) (out []degradation) {
	var all []failure
	told := 0 // members that say how they are
	for _, m := range members {
		if m.Stats == nil {
			continue
		}
		told++
		for _, u := range m.Stats.Upstreams {
			i := slices.IndexFunc(all, func(f failure) bool { return f.Registry == u.Registry && f.Host == u.Host && f.State == u.State })
			if i < 0 {
				i, all = len(all), append(all, failure{upstreamStatus: u})
			}
			all[i].at = append(all[i].at, m.Name)
			if u.Since.Before(all[i].Since) {
				all[i].Since = u.Since
			}
		}
	}
	slices.SortStableFunc(all, func(a, b failure) int {
		return cmp.Or(cmp.Compare(a.Registry, b.Registry), cmp.Compare(a.Host, b.Host), cmp.Compare(a.State, b.State))
	})
	for _, f := range all {
		out = append(out, degradation{Of: f.Host, Reason: f.reason(told, now), At: f.at})
	}
	return out
}

// reason says what is wrong with it, and where, among that many members.
func (f failure) reason(members int, now time.Time) string {
	text := fmt.Sprintf("%s %s", f.State, since(f.Since, now))
	if f.Host != f.Registry {
		text += " as a mirror of " + f.Registry
	}
	switch {
	case members == 1:
	case len(f.at) == members:
		text += fmt.Sprintf(" at all %d members", members)
	default:
		text += " at " + few(f.at)
	}
	return text + after(": ", f.LastError)
}
