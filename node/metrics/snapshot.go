package metrics

import (
	"time"

	"oci-proxy/node/figures"
)

// Other is the label of all registries that nobody configured: clients make up names.
const Other = "other"

// A Snapshot is what the other rooms counted by one moment, and how they are then. Maps
// are by configured registry or [Other], unless it says otherwise.
type Snapshot struct {
	Registries map[string]*figures.Registry
	Evictions  map[string]map[string]int64 // then by cause
	Turns      map[string]Turns            // of requests to registries
	Upstreams  []Upstream
	Disks      []Disk
	Verified   []Verified

	Members       map[string]int64 // by state
	Ring          uint64           // a sum over who owns what
	Disagreeing   int              // members that say they have another ring
	Quarantined   int              // members that are not asked
	PeersPassed   map[string]int64 // by reason
	Copies        map[string]int64 // second copies, by what became of them
	CopiedBytes   int64
	CopiesWaiting int64
	Directory     figures.Directory
	Pulls         Turns // of clients
	PullsRefused  int64
	FailedLogins  int64
	Connections   int // of clients
	Flights       int
	Followers     int // requests that wait for a flight or read from it
	KeptLists     int64
	KeptBound     int64
	Archive       map[string]int64 // objects, by what happened to them
	Broken        map[string]bool  // by the code of a degraded reason: all codes
	Ready         bool
	SentOn        int64            // members that were sent on to another for a large blob
	FeedersLeft   map[string]int64 // by reason
}

// Turns are how many requests have a turn now, and how many wait for one.
type Turns struct{ Active, Waiting int }

// An Upstream is how a configured registry, or a mirror of it, does.
type Upstream struct {
	Registry, Host string
	Up             bool
	Quota          *Quota // nil: it tells no rate limit
}

// A Quota is a rate limit, in requests.
type Quota struct {
	Limit, Remaining int64
	Reset            time.Time
}

// A Disk is where a cache directory lies.
type Disk struct {
	Dir  string
	Free int64 // bytes
}

// Verified are bytes whose sums were checked.
type Verified struct {
	Where      string // they were: network or disk
	Right, Bad int64  // bytes
}
