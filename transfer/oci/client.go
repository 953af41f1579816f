package oci

import "context"

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
