// Package figures is what nodes count for each registry. [Table] is the one
// list: it says what each [Figure] is called and where it is counted. Figures
// are added up, told to other nodes and read from them by walking it.
package figures

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"unicode"

	"oci-proxy/cache"
	"oci-proxy/transfer/count"
)

// A Figure is one number that is counted for each registry.
type Figure int

// The figures.
const (
	Hits              Figure = iota // client requests served from the node's own disk
	PeerHits                        // client requests served from another node's disk
	Misses                          // client requests served from upstream
	Evictions                       // blobs evicted to make room
	Items                           // blobs held
	CurrentSize                     // bytes of the blobs held
	MaxSize                         // the bound in bytes; 0: none
	HitBytes                        // bytes sent to clients for Hits
	PeerHitBytes                    // bytes sent to clients for PeerHits
	MissBytes                       // bytes sent to clients for Misses
	FromUpstreamBytes               // bytes of blobs received from upstream
	FromPeersBytes                  // bytes of blobs received from other nodes
	ToPeers                         // blobs sent to other nodes, which no client's figure counts
	ToPeersBytes                    // bytes of them
	PeersPassed                     // nodes that were passed over because they could not help
	FromArchiveBytes                // bytes of blobs received from the bucket of the archive
	Resumes                         // downloads that broke off and were taken up again
	many                            // how many figures there are
)

// A Row says what a figure is called in reports, and where it is counted: by the
// fetcher or in a store. Neither is set for MaxSize, a bound that stores share.
type Row struct {
	Name    string
	counter func(c *count.Counters) *atomic.Int64
	held    func(s cache.Stats) int64
}

// Table has a row for each figure.
var Table = [many]Row{
	Hits:              {Name: "Hits", counter: func(c *count.Counters) *atomic.Int64 { return &c.Hits }},
	PeerHits:          {Name: "PeerHits", counter: func(c *count.Counters) *atomic.Int64 { return &c.PeerHits }},
	Misses:            {Name: "Misses", counter: func(c *count.Counters) *atomic.Int64 { return &c.Misses }},
	Evictions:         {Name: "Evictions", held: func(s cache.Stats) int64 { return s.Evicted() }},
	Items:             {Name: "Items", held: func(s cache.Stats) int64 { return s.Items }},
	CurrentSize:       {Name: "CurrentSize", held: func(s cache.Stats) int64 { return s.Bytes }},
	MaxSize:           {Name: "MaxSize"},
	HitBytes:          {Name: "HitBytes", counter: func(c *count.Counters) *atomic.Int64 { return &c.HitBytes }},
	PeerHitBytes:      {Name: "PeerHitBytes", counter: func(c *count.Counters) *atomic.Int64 { return &c.PeerHitBytes }},
	MissBytes:         {Name: "MissBytes", counter: func(c *count.Counters) *atomic.Int64 { return &c.MissBytes }},
	FromUpstreamBytes: {Name: "FromUpstreamBytes", counter: func(c *count.Counters) *atomic.Int64 { return &c.FromUpstreamBytes }},
	FromPeersBytes:    {Name: "FromPeersBytes", counter: func(c *count.Counters) *atomic.Int64 { return &c.FromPeersBytes }},
	ToPeers:           {Name: "ToPeers", counter: func(c *count.Counters) *atomic.Int64 { return &c.ToPeers }},
	ToPeersBytes:      {Name: "ToPeersBytes", counter: func(c *count.Counters) *atomic.Int64 { return &c.ToPeersBytes }},
	PeersPassed:       {Name: "PeersPassed", counter: func(c *count.Counters) *atomic.Int64 { return &c.PeersPassed }},
	FromArchiveBytes:  {Name: "FromArchiveBytes", counter: func(c *count.Counters) *atomic.Int64 { return &c.FromArchiveBytes }},
	Resumes:           {Name: "Resumes", counter: func(c *count.Counters) *atomic.Int64 { return &c.Resumes }},
}

// A Registry is all figures of one registry.
type Registry [many]int64

// Add adds another node's figures.
func (r *Registry) Add(o *Registry) {
	for f := range r {
		r[f] += o[f]
	}
}

// Count adds what the fetcher counted.
func (r *Registry) Count(c *count.Counters) {
	for f, row := range Table {
		if row.counter != nil {
			r[f] += row.counter(c).Load()
		}
	}
}

// Hold adds what a store holds of the registry, and sets the bound to the
// store's.
func (r *Registry) Hold(s cache.Stats) {
	for f, row := range Table {
		if row.held != nil {
			r[f] += row.held(s)
		}
	}
	r[MaxSize] = s.Bound
}

// MarshalJSON writes an object with a member for each figure, in the order of the
// table.
func (r *Registry) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for f, row := range Table {
		if f > 0 {
			out = append(out, ',')
		}
		member, err := json.Marshal(r[f])
		if err != nil {
			return nil, err
		}
		out = append(out, '"')
		out = append(out, row.Name...)
		out = append(append(out, '"', ':'), member...)
	}
	return append(out, '}'), nil
}

// UnmarshalJSON reads such an object. Members that it does not know are a newer
// version's and are ignored.
func (r *Registry) UnmarshalJSON(raw []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return err
	}
	for f, row := range Table {
		if member, ok := members[row.Name]; ok {
			if err := json.Unmarshal(member, &r[f]); err != nil {
				return err
			}
		}
	}
	return nil
}

// A Node is one node's figures, as other nodes ask for them.
type Node struct {
	Registries map[string]*Registry `json:"registries"`
	MaxSize    int64                `json:"max_size"`       // of all its stores, each counted once
	Ring       string               `json:"ring,omitempty"` // who owns what, as it sees it: equal on nodes that agree
	// Of the node itself; earlier versions tell none of them.
	Uptime  int64    `json:"uptime_seconds,omitempty"` // whole seconds since it started, at least 1
	Pulls   int64    `json:"pulls,omitempty"`          // requests of pulls that it is answering
	Reasons []string `json:"reasons,omitempty"`        // why it is degraded, as /_/health tells operators
	Codes   []string `json:"codes,omitempty"`          // the same, as it tells everybody
	Hour    *Hour    `json:"hour,omitempty"`           // what its clients got, minute by minute
	// Directory is what other members told it of its blobs; nil on a node on its own.
	Directory *Directory `json:"directory,omitempty"`
	// Upstreams are the registries and mirrors that fail it, 32 at most.
	Upstreams []Upstream `json:"upstreams,omitempty"`
}

// A Directory is how large a node's directory is of who holds its blobs.
type Directory struct {
	Entries int64 `json:"entries"` // of a blob and another member that holds it
	Bytes   int64 `json:"bytes"`   // of memory
	Members int64 `json:"members"` // that have told all that they hold
}

const (
	// maxRegistries bounds the registries that another node tells figures of.
	maxRegistries = 4096
	// maxName bounds the names of those registries.
	maxName = 255
	// maxReasons bounds why a node is degraded, and maxReason each reason in bytes.
	maxReasons = 32
	maxReason  = 1 << 10
	// maxValue bounds a figure, so that no sum over nodes overflows.
	maxValue = 1 << 53
)

var errBounds = errors.New("the figures are out of bounds")

// Parse reads what another node says of itself. It may say anything.
func Parse(raw []byte) (*Node, error) {
	n := new(Node)
	if err := json.Unmarshal(raw, n); err != nil {
		return nil, err
	}
	if len(n.Registries) > maxRegistries || !sane(n.MaxSize, n.Uptime, n.Pulls) || !named(n.Ring) {
		return nil, errBounds
	}
	if d := n.Directory; d != nil && !sane(d.Entries, d.Bytes, d.Members) {
		return nil, errBounds
	}
	n.Reasons, n.Codes, n.Upstreams = Reasons(n.Reasons), Reasons(n.Codes), Upstreams(n.Upstreams)
	for name, r := range n.Registries {
		switch {
		case r == nil:
			delete(n.Registries, name) // another version's idea of figures
		case !named(name) || !sane(r[:]...):
			return nil, errBounds
		}
	}
	return n, nil
}

// Reasons returns reasons as they are told: 32 at most, each as Line has it.
func Reasons(all []string) []string {
	out := slices.Clone(all[:min(len(all), maxReasons)])
	for i, one := range out {
		out[i] = Line(one)
	}
	return out
}

// Line returns what another node says as one line of printable characters, at most 1 KiB.
func Line(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s[:min(len(s), maxReason)], ""))
}

// named reports whether a registry may have that name.
func named(name string) bool {
	return len(name) <= maxName && strings.IndexFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
}

// sane reports whether all values are possible.
func sane(values ...int64) bool {
	for _, v := range values {
		if v < 0 || v > maxValue {
			return false
		}
	}
	return true
}

// AddAll adds another node's figures to sum.
func AddAll(sum, more map[string]*Registry) {
	for registry, r := range more {
		if sum[registry] == nil {
			sum[registry] = new(Registry)
		}
		sum[registry].Add(r)
	}
}
