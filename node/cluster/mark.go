package cluster

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"oci-proxy/node/membership"
)

// Marks are the pseudonyms by which the members' requests to registries are known
// again (Via, RFC 9110 section 7.6.3).
type Marks struct {
	view func() *membership.View // nil for a node on its own
	lone string                  // the mark of such a node
}

// newMarks returns the marks of the members in view, or without one those of a node
// on its own, which has a new one at each start.
func newMarks(view func() *membership.View) *Marks { return &Marks{view, mark(rand.Text())} }

// mark makes a pseudonym of what only one node is called. It tells nothing else of
// the node.
func mark(id string) string {
	sum := sha256.Sum256([]byte("via " + id))
	return "oci-proxy-" + hex.EncodeToString(sum[:8])
}

// Own is this node's mark.
func (m *Marks) Own() string {
	if m.view == nil {
		return m.lone
	}
	return mark(m.view().Self.ID)
}

// Passed reports whether a request with these values of Via was sent by this node or
// another member. Other proxies, of this program too, do not count: chains of caches
// are in order.
func (m *Marks) Passed(via []string) bool {
	if len(via) == 0 {
		return false
	}
	ours := map[string]bool{m.Own(): true}
	if m.view != nil {
		for _, one := range m.view().Members {
			ours[mark(one.ID)] = true
		}
	}
	for hop := range strings.SplitSeq(strings.Join(via, ","), ",") {
		if by := strings.Fields(hop); len(by) > 1 && ours[by[1]] {
			return true
		}
	}
	return false
}
