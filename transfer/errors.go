package transfer

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what sort of failure an Error is. It decides whether another try
// makes sense and what a client is told.
type Kind int

// The kinds of failure.
const (
	// Unavailable: the network, a 5xx answer, or anything else that may pass.
	Unavailable Kind = iota
	// Timeout: no answer in time.
	Timeout
	// NotFound: upstream says that it has no such thing.
	NotFound
	// Denied: upstream refuses, whatever we show it, or the registry is not allowed.
	Denied
	// Limited: upstream asks us to come back later (429).
	Limited
	// Corrupt: the bytes are not those that the digest names.
	Corrupt
	// Invalid: the request itself makes no sense to upstream (400).
	Invalid
	// Offline: the registry is configured never to be asked.
	Offline
)

// String returns the kind as it stands in logs.
func (k Kind) String() string {
	return [...]string{"unavailable", "timeout", "not found", "denied", "limited", "corrupt", "invalid", "offline"}[k]
}

// An Error says what failed where, in parts, so that the node can answer a
// client, decide on stale content and log it without parsing text. It never
// holds a credential or a query string.
type Error struct {
	Kind       Kind
	Registry   string        // canonical host[:port]
	Host       string        // the host that failed: the registry, its token server, its CDN or the proxy
	Status     int           // upstream's status code, 0 where there was none
	Reason     string        // one sentence for people
	RetryAfter time.Duration // what upstream asked for, 0 if it did not
	Relayed    bool          // another member heard it, and told this one
	Err        error         // the cause, if there is one
}

// Error returns registry, host, status, reason and cause in one line.
func (e *Error) Error() string {
	s := e.Registry + ": " + e.Reason
	if e.Host != "" && e.Host != e.Registry {
		s += " (at " + e.Host + ")"
	}
	if e.Status != 0 {
		s += fmt.Sprintf(": upstream answered %d", e.Status)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Passing reports whether the failure may be gone at another try or at
// another source, so that stale content may stand in for a fresh answer.
func (e *Error) Passing() bool {
	switch e.Kind {
	case Unavailable, Timeout, Limited, Corrupt, Offline:
		return true
	default:
		return false
	}
}

// asError returns the Error that err holds.
func asError(err error) (*Error, bool) { return errors.AsType[*Error](err) }

// KindOf returns the kind of err, Unavailable if err does not hold an Error.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Unavailable
}
