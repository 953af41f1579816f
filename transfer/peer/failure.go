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
}

// encodeError writes e as one line.
func encodeError(e *oci.Error) string {
	kind, exactly := e.Kind, ""
	if kind > oci.Offline {
		kind, exactly = oci.Unavailable, e.Kind.String()
	}
	b, err := json.Marshal(failure{
		Kind: kind.String(), Exactly: exactly, Registry: e.Registry, Host: printable(e.Host, maxWord), By: e.By.String(), Status: e.Status,
		Reason: printable(e.Reason, maxReason), RetryAfter: e.RetryAfter.Seconds(), Unreached: e.Unreached,
	})
	if err != nil { // never, for strings and numbers
		return "{}"
	}
	return string(b)
}

var errFailure = errors.New("the failure in its answer is malformed")

// decodeError reads what encodeError wrote, for a request about that registry. The
// failure is that registry's, whatever the peer says.
func decodeError(s, registry string) (*oci.Error, error) {
	var f failure
	if err := json.Unmarshal([]byte(s), &f); err != nil {
		return nil, errFailure
	}
	kind, ok := kindOf(f.Kind)
	if exactly, known := kindOf(f.Exactly); known {
		kind = exactly
	}
	if !ok || f.Status != 0 && (f.Status < 100 || f.Status > 999) {
		return nil, errFailure
	}
	const most = 24 * time.Hour
	return &oci.Error{
		Kind: kind, Registry: registry, Host: printable(f.Host, maxWord), By: partyOf(f), Status: f.Status,
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
	for p := oci.Nobody; p <= oci.Middlebox; p++ {
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
