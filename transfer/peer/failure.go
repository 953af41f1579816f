package peer

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"oci-proxy/transfer/oci"
)

// A failure is an oci.Error as it is sent. The cause stays behind.
type failure struct {
	Kind       string  `json:"kind"`
	Exactly    string  `json:"exactly,omitempty"` // a kind that older members don't know; to them it is Kind
	Registry   string  `json:"registry,omitempty"`
	Host       string  `json:"host,omitempty"`
	By         string  `json:"by,omitempty"` // older members don't tell
	Status     int     `json:"status,omitempty"`
	Reason     string  `json:"reason,omitempty"`
	RetryAfter float64 `json:"retry_after,omitempty"` // seconds
	Unreached  bool    `json:"unreached,omitempty"`
	// Ago is set if this was kept, and stands in for how the registry fails now: how many
	// milliseconds ago the registry said it.
	Ago     int64    `json:"ago,omitempty"`
	Instead *failure `json:"instead,omitempty"` // how the registry fails now
}

// encodeError writes e as one line.
func encodeError(e *oci.Error) string {
	f := failureOf(e)
	if now, ok := oci.AsError(e.Err); ok && !e.Told.IsZero() {
		f.Ago = min(max(0, time.Since(e.Told).Milliseconds())+1, maxAge) // rather too old than too new
		f.Instead = failureOf(now)
	}
	b, err := json.Marshal(f)
	if err != nil { // never, for strings and numbers
		return "{}"
	}
	return string(b)
}

// failureOf is what is sent of e itself.
func failureOf(e *oci.Error) *failure {
	kind, exactly := e.Kind, ""
	if kind > oci.Offline {
		kind, exactly = oci.Unavailable, e.Kind.String()
	}
	return &failure{
		Kind: kind.String(), Exactly: exactly, Registry: e.Registry, Host: printable(e.Host, maxWord), By: e.By.String(), Status: e.Status,
		Reason: printable(e.Reason, maxReason), RetryAfter: e.RetryAfter.Seconds(), Unreached: e.Unreached,
	}
}

var errFailure = errors.New("the failure in its answer is malformed")

// decodeError reads what encodeError wrote, for a request about that registry. The
// failure is that registry's, whatever the peer says.
func decodeError(s, registry string) (*oci.Error, error) {
	var f failure
	if err := json.Unmarshal([]byte(s), &f); err != nil || f.Ago < 0 || f.Ago > maxAge {
		return nil, errFailure
	}
	e, err := f.error(registry)
	if err != nil || f.Instead == nil || f.Ago == 0 {
		return e, err
	}
	now, err := f.Instead.error(registry)
	if err != nil {
		return nil, err
	}
	e.Told, e.Err = time.Now().Add(-time.Duration(f.Ago)*time.Millisecond), now
	return e, nil
}

// error is the failure as that registry's.
func (f *failure) error(registry string) (*oci.Error, error) {
	kind, ok := kindOf(f.Kind)
	if exactly, known := kindOf(f.Exactly); known {
		kind = exactly
	}
	if !ok || f.Status != 0 && (f.Status < 100 || f.Status > 999) {
		return nil, errFailure
	}
	const most = 24 * time.Hour
	return &oci.Error{
		Kind: kind, Registry: registry, Host: printable(f.Host, maxWord), By: partyOf(*f), Status: f.Status,
		Reason:     printable(f.Reason, maxReason),
		Relayed:    true,
		Unreached:  f.Unreached,
		RetryAfter: time.Duration(min(max(f.RetryAfter, 0), most.Seconds()) * float64(time.Second)),
	}, nil
}

// kindOf returns the kind of that name.
func kindOf(name string) (oci.Kind, bool) {
	for k := oci.Unavailable; k <= oci.Looped; k++ {
		if k.String() == name {
			return k, true
		}
	}
	return 0, false
}

// partyOf returns who gave the answer that f reports. An older member does not
// tell: what looks like the registry's refusal counts as the registry's. A party
// that this version does not know counts as nobody, whose word proves nothing.
func partyOf(f failure) oci.Party {
	for p := oci.Nobody; p <= oci.Mirror; p++ {
		if p.String() == f.By {
			return p
		}
	}
	if f.By != "" {
		return oci.Nobody
	}
	switch f.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return oci.Registry
	default:
		return oci.Nobody
	}
}

// statusOf is the status of an answer that tells of the registry's failure. It
// helps those who look at the traffic: the client reads headerError.
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
