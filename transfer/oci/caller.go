package oci

import (
	"context"
	"strings"
)

// A Caller is for whom something is done. The zero Caller is nobody in particular.
type Caller struct {
	Client  string // only tells one client from another, so that what all use is shared fairly
	Request string // id of the client's request (X-Request-Id), so that logs can name it on every node
	User    User   // as access rules know people
}

// A CallerKey is the key of a context's *Caller, which may be changed until somebody else is given the
// context.
type CallerKey struct{}

// Into returns ctx for what is done for c.
func (c Caller) Into(ctx context.Context) context.Context {
	return context.WithValue(ctx, CallerKey{}, &c)
}

// As is c as another user.
func (c Caller) As(u User) Caller {
	c.User = u
	return c
}

// CallerOf returns for whom ctx does something.
func CallerOf(ctx context.Context) Caller {
	if c, ok := ctx.Value(CallerKey{}).(*Caller); ok {
		return *c
	}
	return Caller{}
}

// maxRequestID bounds the id of a request in bytes.
const maxRequestID = 128

// IsRequestID reports whether s can be the id of a request: 1 to 128 visible ASCII
// characters without quotes and backslashes, so that it stands in headers, logs and JSON as it is.
func IsRequestID(s string) bool {
	return s != "" && len(s) <= maxRequestID && strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '"' || r == '\\'
	}) < 0
}
