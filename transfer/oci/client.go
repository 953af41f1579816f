package oci

import (
	"context"
	"strings"
)

type clientKey struct{}

// ForClient returns ctx for what is done for a client. The name only tells one
// client from another, so that what all use is shared fairly.
func ForClient(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, clientKey{}, name)
}

// ClientOf returns whom ctx is for, "" if that is nobody in particular.
func ClientOf(ctx context.Context) string {
	name, _ := ctx.Value(clientKey{}).(string)
	return name
}

type requestKey struct{}

// ForRequest returns ctx for what is done for a client's request of that id
// (X-Request-Id), so that logs can name it on every node.
func ForRequest(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// RequestOf returns the id of the request that ctx is for, "" if it is for none.
func RequestOf(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
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
