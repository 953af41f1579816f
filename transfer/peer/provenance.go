package peer

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// setProvenance tells how an answer came about.
func setProvenance(h http.Header, prov oci.Provenance, name string, tag bool) {
	status := prov.CacheStatus(name, tag)
	if len(status) > maxVia { // it took a long way from node to node
		prov.Via = ""
		status = prov.CacheStatus(name, tag)
	}
	h.Set(headerVia, status)
	h.Set(headerSource, oci.Miss.String())
	if prov.Origin != oci.Miss {
		h.Set(headerSource, oci.Hit.String())
	}
	if !prov.At.IsZero() {
		h.Set(headerAge, strconv.FormatInt(max(0, time.Since(prov.At).Milliseconds()+1), 10)) // rather too old than too new
	}
	if prov.Collapsed {
		h.Set(headerCollapsed, "1")
	}
	if prov.Stale != nil {
		h.Set(headerStale, encodeError(prov.Stale))
	}
}

// readProvenance reads what setProvenance wrote. A hit at the peer or at a third
// node is a peer's hit here. asked is when the peer was asked: the age it tells
// counts from then.
func readProvenance(h http.Header, peer, registry string, asked time.Time) (oci.Provenance, error) {
	prov := oci.Provenance{Origin: oci.Miss, Collapsed: h.Get(headerCollapsed) != "", Host: peer, Via: h.Get(headerVia), At: asked}
	if !visible(prov.Via, maxVia) {
		return prov, errors.New("its Cache-Status is malformed")
	}
	if s := h.Get(headerAge); s != "" {
		age, err := strconv.ParseUint(s, 10, 64)
		if err != nil || age > maxAge {
			return prov, errors.New("its age is malformed")
		}
		prov.At = asked.Add(-time.Duration(age) * time.Millisecond)
	}
	if h.Get(headerSource) == oci.Hit.String() {
		prov.Origin = oci.PeerHit
	}
	if s := h.Get(headerStale); s != "" {
		var err error
		if prov.Stale, err = decodeError(s, registry); err != nil {
			return prov, err
		}
	}
	return prov, nil
}

// The presences as they are sent.
var presences = map[mesh.Presence]string{mesh.Absent: "absent", mesh.Arriving: "arriving", mesh.Held: "held"}

// setPresence answers a peek.
func setPresence(h http.Header, p mesh.Presence) {
	if p == mesh.Begun { // earlier versions know no such presence
		h.Set(headerBegun, "1")
		p = mesh.Absent
	}
	h.Set(headerPresence, presences[p])
}

// readPresence reads what setPresence wrote.
func readPresence(h http.Header) (mesh.Presence, error) {
	for p, name := range presences {
		switch {
		case name != h.Get(headerPresence):
		case p == mesh.Absent && h.Get(headerBegun) != "":
			return mesh.Begun, nil
		default:
			return p, nil
		}
	}
	return mesh.Absent, errors.New("its presence is malformed")
}
