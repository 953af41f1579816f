package peer

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// A failure is a transfer.Error as it travels. The cause stays behind.
type failure struct {
	Kind       string  `json:"kind"`
	Registry   string  `json:"registry,omitempty"`
	Host       string  `json:"host,omitempty"`
	Status     int     `json:"status,omitempty"`
	Reason     string  `json:"reason,omitempty"`
	RetryAfter float64 `json:"retry_after,omitempty"` // seconds
}

// encodeError writes e as one line.
func encodeError(e *oci.Error) string {
	b, err := json.Marshal(failure{
		Kind: e.Kind.String(), Registry: e.Registry, Host: printable(e.Host, maxWord), Status: e.Status,
		Reason: printable(e.Reason, maxReason), RetryAfter: e.RetryAfter.Seconds(),
	})
	if err != nil { // strings and numbers: can't be
		return "{}"
	}
	return string(b)
}

var errFailure = errors.New("the failure that it tells is malformed")

// decodeError reads what encodeError wrote, for a request that went to
// registry: whatever the peer says of that, the failure is that one's.
func decodeError(s, registry string) (*oci.Error, error) {
	var f failure
	if err := json.Unmarshal([]byte(s), &f); err != nil {
		return nil, errFailure
	}
	kind, ok := kindOf(f.Kind)
	if !ok || f.Status != 0 && (f.Status < 100 || f.Status > 999) {
		return nil, errFailure
	}
	const most = 24 * time.Hour
	return &oci.Error{
		Kind: kind, Registry: registry, Host: printable(f.Host, maxWord), Status: f.Status,
		Reason:     printable(f.Reason, maxReason),
		Relayed:    true,
		RetryAfter: time.Duration(min(max(f.RetryAfter, 0), most.Seconds()) * float64(time.Second)),
	}, nil
}

// kindOf returns the kind of that name.
func kindOf(name string) (oci.Kind, bool) {
	for k := oci.Unavailable; k <= oci.Offline; k++ {
		if k.String() == name {
			return k, true
		}
	}
	return 0, false
}

// statusOf is the status of an answer that tells of the registry's failure. It
// is for those who look at the traffic: the client reads headerError.
func statusOf(k oci.Kind) int {
	switch k {
	case oci.NotFound:
		return http.StatusNotFound
	case oci.Denied:
		return http.StatusForbidden
	case oci.Limited:
		return http.StatusTooManyRequests
	case oci.Timeout:
		return http.StatusGatewayTimeout
	default:
		return http.StatusBadGateway
	}
}

// printable cuts s to most bytes and puts ? for what can't be seen.
func printable(s string, most int) string {
	var b strings.Builder
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			r = '?'
		}
		if b.Len()+len(string(r)) > most {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// visible reports whether s is printable ASCII of at most so many bytes.
func visible(s string, most int) bool {
	return len(s) <= most && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// setWay tells how an answer came about.
func setWay(h http.Header, way oci.Provenance, name string, tag bool) {
	h.Set(headerVia, way.CacheStatus(name, tag))
	h.Set(headerSource, oci.Miss.String())
	if way.Origin != oci.Miss {
		h.Set(headerSource, oci.Hit.String())
	}
	if !way.At.IsZero() {
		h.Set(headerAge, strconv.FormatInt(max(0, time.Since(way.At).Milliseconds()+1), 10)) // rather too old
	}
	if way.Collapsed {
		h.Set(headerCollapsed, "1")
	}
	if way.Stale != nil {
		h.Set(headerStale, encodeError(way.Stale))
	}
}

// wayOf reads what setWay wrote: what was a hit at the peer, or a third node's,
// is a peer's hit here. asked is when the peer was asked: what it knows for a
// while is at least that much older.
func wayOf(h http.Header, peer, registry string, asked time.Time) (oci.Provenance, error) {
	way := oci.Provenance{Origin: oci.Miss, Collapsed: h.Get(headerCollapsed) != "", Host: peer, Via: h.Get(headerVia), At: asked}
	if !visible(way.Via, maxVia) {
		return way, errors.New("its Cache-Status is malformed")
	}
	if s := h.Get(headerAge); s != "" {
		age, err := strconv.ParseUint(s, 10, 64)
		if err != nil || age > maxAge {
			return way, errors.New("its age is malformed")
		}
		way.At = asked.Add(-time.Duration(age) * time.Millisecond)
	}
	if h.Get(headerSource) == oci.Hit.String() {
		way.Origin = oci.PeerHit
	}
	if s := h.Get(headerStale); s != "" {
		var err error
		if way.Stale, err = decodeError(s, registry); err != nil {
			return way, err
		}
	}
	return way, nil
}

// The presences as they travel.
var presences = map[mesh.Presence]string{mesh.Absent: "absent", mesh.Arriving: "arriving", mesh.Held: "held"}

// parsePresence reads one.
func parsePresence(s string) (mesh.Presence, error) {
	for p, name := range presences {
		if name == s {
			return p, nil
		}
	}
	return mesh.Absent, errors.New("it tells no presence")
}

// isLocation reports whether a redirect can be handed to a client.
func isLocation(s string) bool {
	if !visible(s, maxNext) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}
