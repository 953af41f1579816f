package config

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"
)

// A Secret is a text that no log, error or dump shows: whatever prints it
// shows "***", or nothing if there is none.
type Secret string

// Reveal returns the secret itself, for the one place that has to send or
// compare it.
func (s Secret) Reveal() string { return string(s) }

// String returns "***", or "" for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString returns what String returns, quoted.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// Format prints what String returns, whatever the verb: %x would show the
// secret otherwise.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'q' || verb == 'v' && f.Flag('#') {
		text = s.GoString()
	}
	_, _ = io.WriteString(f, text)
}

// LogValue returns what String returns.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what String returns.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON returns what String returns, quoted.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(s.GoString()), nil }

// MarshalYAML returns what String returns.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// The Formats below print with %+v whatever the verb: for a verb that does not
// fit, package fmt prints what a pointer points to without asking its methods,
// secrets and all.

// Format prints c without its secrets.
func (c Config) Format(f fmt.State, _ rune) {
	type plain Config // without this method
	fmt.Fprintf(f, "%+v", plain(c))
}

// Format prints a without its password.
func (a Auth) Format(f fmt.State, _ rune) {
	type plain Auth
	fmt.Fprintf(f, "%+v", plain(a))
}

// Format prints c without its secrets.
func (c Cluster) Format(f fmt.State, _ rune) {
	type plain Cluster
	fmt.Fprintf(f, "%+v", plain(c))
}

// Format prints r without the password of its proxy.
func (r Registry) Format(f fmt.State, _ rune) {
	type plain Registry
	if u := r.UpstreamProxy; u != nil && u.User != nil {
		hidden := *u
		hidden.User = url.UserPassword(u.User.Username(), "xxxxx")
		r.UpstreamProxy = &hidden
	}
	fmt.Fprintf(f, "%+v", plain(r))
}
