package figures

import (
	"slices"
	"time"
)

// An Upstream is a registry, or a mirror of it, that fails a node.
type Upstream struct {
	Registry  string    `json:"registry"`
	Host      string    `json:"host"`       // the registry's own, or that of a mirror
	State     string    `json:"state"`      // as /_/upstreams has it: down or limited
	Since     time.Time `json:"since"`      // by the node's own clock
	LastError string    `json:"last_error"` // how it last failed
}

// Upstreams returns what a node says of those that fail it, as it is told: 32 at most, each
// text as Line has it.
func Upstreams(all []Upstream) []Upstream {
	out := slices.Clone(all[:min(len(all), maxReasons)])
	for i := range out {
		for _, text := range []*string{&out[i].Registry, &out[i].Host, &out[i].State, &out[i].LastError} {
			*text = Line(*text)
		}
	}
	return out
}
