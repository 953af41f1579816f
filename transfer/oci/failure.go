package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind says what sort of failure an Error is. It decides whether another try
// makes sense and what the client is told.
type Kind int

// The kinds of failure.
const (
	// Unavailable: the network failed, upstream answered 5xx, or anything else that may pass.
	Unavailable Kind = iota
	// Timeout: no answer came in time.
	Timeout
	// NotFound: upstream says that it has no such thing.
	NotFound
	// Denied: upstream refuses whatever credentials it is shown, or the registry is not allowed.
	Denied
	// Limited: upstream asks us to come back later (429).
	Limited
	// Corrupt: the bytes are not those that the digest names.
	Corrupt
	// Invalid: upstream cannot make sense of the request (400, 405, 501).
	Invalid
	// Offline: the configuration says never to ask the registry.
	Offline
	// Busy: no turn came for the request: too many are at the registry, or others have
	// all the memory that this node has for such answers.
	Busy
	// Looped: the registry's name leads back to this proxy.
	Looped
)

// String returns the kind as logs show it.
func (k Kind) String() string {
	return [...]string{"unavailable", "timeout", "not found", "denied", "limited", "corrupt", "invalid", "offline", "busy", "looped"}[k]
}

// A Party is who gave an answer.
type Party int

// The parties. Only the registry and its token server speak for a repository.
const (
	Nobody      Party = iota // there was no answer
	Registry                 // the registry itself
	TokenServer              // the server that its challenge names
	Storage                  // where the registry's redirect leads
	Middlebox                // something between us and the registry: a proxy, a firewall, a balancer
)

// String returns the party as logs show it.
func (p Party) String() string {
	return [...]string{"nobody", "registry", "token server", "storage", "middlebox"}[p]
}

// An Error says what failed where, in parts, so that the node can answer a
// client, decide whether stale content may be served and log the failure without
// parsing text. It never holds a credential or a query string.
type Error struct {
	Kind       Kind
	Registry   string        // canonical host[:port]
	Host       string        // the host that failed: the registry, its token server, its storage or a proxy
	By         Party         // who gave the answer that this Error reports
	Status     int           // the status code of that answer, 0 if there was none
	Reason     string        // one sentence for people
	RetryAfter time.Duration // how long upstream asked us to wait, 0 if it did not say
	Relayed    bool          // another member heard the answer and passed it on
	Unreached  bool          // no connection came about: another node may have another way out
	Inside     string        // Reason for operators, if it tells what the network inside is like; stays on this node
	Told       time.Time     // when the registry gave this answer, if it was kept and stands in for Err, how the registry fails now; zero: just now
	Err        error         // the cause, if there is one
}

// Error returns registry, host, status, reason and cause in one line. It is for
// operators.
func (e *Error) Error() string {
	s := e.Registry + ": " + cmp.Or(e.Inside, e.Reason)
	if e.Host != "" && e.Host != e.Registry {
		s += " (at " + e.Host + ")"
	}
	if e.Status != 0 {
		s += fmt.Sprintf(": upstream answered %d", e.Status)
	}
	if !e.Told.IsZero() {
		s += ", as it said at " + e.Told.UTC().Format(time.RFC3339) + "; it fails now"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Passing reports whether the failure may be gone at another try or at another
// source, so that stale content may stand in for a fresh answer.
func (e *Error) Passing() bool {
	switch e.Kind {
	case Unavailable, Timeout, Limited, Corrupt, Offline, Busy, Looped:
		return true
	default:
		return false
	}
}

// LastWordCounts reports whether what the registry said before stands in for this failure:
// it passes, the registry does not understand the question, or this node itself refused to
// go where an answer led. What says no, by whomever, is for the caller to judge.
func (e *Error) LastWordCounts() bool {
	return e.Passing() || e.Status != 0 && e.Kind == Invalid || e.Kind == Denied && e.By == Nobody
}

// OtherNodeMayHelp reports whether another node, with its own way to the
// registry, may get a better answer.
func (e *Error) OtherNodeMayHelp() bool { return e.Passing() && e.Kind != Limited && e.Kind != Looped }

// Authoritative reports whether the registry or its token server gave the
// answer. What anybody else says tells nothing about the right to pull.
func (e *Error) Authoritative() bool { return e.By == Registry || e.By == TokenServer }

// AsError returns the Error that err holds.
func AsError(err error) (*Error, bool) { return errors.AsType[*Error](err) }

// KindOf returns the kind of err, Unavailable if err holds no Error.
func KindOf(err error) Kind {
	if e, ok := AsError(err); ok {
		return e.Kind
	}
	return Unavailable
}

// OfflineError is the answer for content that is not cached while the
// configuration says never to ask the registry.
func OfflineError(ref Ref) error {
	return &Error{Kind: Offline, Registry: ref.Registry, Reason: "the registry is configured as offline and this is not in the cache"}
}

// busyFor is after how long to ask a node again that is busy.
const busyFor = 5 * time.Second

// BusyError ends a request for which this node has no memory now. err says why.
func BusyError(registry string, err error) *Error {
	return &Error{Kind: Busy, Registry: registry, Reason: err.Error(), RetryAfter: busyFor}
}

// NotHeldError is the answer to a member that asks only for what this node holds
// or is downloading.
func NotHeldError(ref Ref) error {
	return &Error{Kind: NotFound, Registry: ref.Registry, Reason: "this node does not hold it"}
}

// UnansweredError ends a request that no node on its route could answer. err is
// the last node's error, nil if there was no node to ask.
func UnansweredError(ref Ref, err error) error {
	if _, ok := AsError(err); ok {
		return err
	}
	e := &Error{Kind: Unavailable, Registry: ref.Registry, Reason: "no node of the cluster that may ask this registry answers", Err: err}
	if err == nil {
		e.Reason = "no node of the cluster may ask this registry"
	}
	return e
}

// LateError is the failure of a registry that does not answer in time.
func LateError(ref Ref, err error) *Error {
	return &Error{Kind: Timeout, Registry: ref.Registry, Reason: "no answer in time", Err: err}
}

// Lateness turns a deadline that passed into a LateError: to the client it is the
// registry that failed, for now. It returns any other error as it is.
func Lateness(ref Ref, err error) error {
	if _, ok := AsError(err); !ok && errors.Is(err, context.DeadlineExceeded) {
		return LateError(ref, err)
	}
	return err
}
