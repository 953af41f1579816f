package gate

import (
	"errors"
	"net/netip"
)

// ErrBusy says that a pull was refused because of others.
var ErrBusy = errors.New("the node is at its limits and has no turn for this pull: try again later")

// A Client is whom a pull is for: a user and an address together, since many
// machines may share one or the other.
type Client struct {
	user string // "" for none
	from netip.Prefix
	// unsure: it needs no login here and brings one that nobody looked at.
	unsure bool
}

// User is the name of the client's login, "" for none.
func (c Client) User() string { return c.user }

// Unsure reports whether the client brings a login that nobody looked at, since it needs none
// here and no access rule depends on it.
func (c Client) Unsure() bool { return c.unsure }

// String names the client for those who only tell one from the other.
func (c Client) String() string {
	var space [64]byte
	return string(append(append(c.from.AppendTo(space[:0]), ' '), c.user...))
}
