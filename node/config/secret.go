package config

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"
)

// A Secret is a text that logs, errors and dumps do not show. They show "***", or
// nothing if the secret is empty.
type Secret string

// Reveal returns the secret itself, for the code that sends or compares it.
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

// Format prints what String returns for every verb; otherwise %x would show the
// secret.
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

// The Format methods below print with %+v for every verb. For a verb that does
// not fit the type, package fmt would print the fields behind a pointer without
// calling their methods, secrets included.

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

// Format prints a without its password.
func (a Account) Format(f fmt.State, _ rune) {
	type plain Account
	fmt.Fprintf(f, "%+v", plain(a))
}

// Format prints c without its secrets.
func (c Cluster) Format(f fmt.State, _ rune) {
	type plain Cluster
	fmt.Fprintf(f, "%+v", plain(c))
}

// Format prints a without its secret key.
func (a Archive) Format(f fmt.State, _ rune) {
	type plain Archive
	fmt.Fprintf(f, "%+v", plain(a))
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
