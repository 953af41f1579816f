package mesh

import (
	"time"

	"oci-proxy/transfer/oci"
)

// A Relayer is a member that can ask registries for this node, by its own way out.
type Relayer interface {
	Peer
	// Relay asks registries by the member's way out. The member keeps nothing of the
	// answers and asks no third node. Errors are *oci.Error if the registry failed or
	// could not be reached from there, and *PeerError if the member itself fails.
	// Nobody has checked a blob's bytes; a manifest matches its digest. How long Open waits
	// for a member that says nothing, ctx alone decides.
	Relay() oci.Upstream
}

// A Way is what a node knows of its own way out to a registry. The zero value says that it
// knows nothing.
type Way struct {
	State   WayState
	Latency time.Duration // until an answer of the registry begins, 0: not known
	Rate    int64         // of a blob's bytes, in bytes a second; 0: not known
}

// WayState is whether a way out leads to a registry.
type WayState int

// The states.
const (
	WayUnknown WayState = iota
	WayUp               // the last request had an answer
	WayDown             // the last request had none
)
