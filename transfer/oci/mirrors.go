package oci

import "context"

type mirrorsKey struct{}

// WithMirrors returns ctx for a question that mirrors of the registry may answer, too: the
// registry is public, or has vouched for just this content. Without it only the registry is
// asked, so that who forgets to say so shows nothing that is private.
func WithMirrors(ctx context.Context) context.Context {
	return context.WithValue(ctx, mirrorsKey{}, true)
}

// WithoutMirrors returns ctx for a question that only the registry may answer, after all.
func WithoutMirrors(ctx context.Context) context.Context {
	return context.WithValue(ctx, mirrorsKey{}, false)
}

// Mirrors reports whether mirrors may answer.
func Mirrors(ctx context.Context) bool {
	may, _ := ctx.Value(mirrorsKey{}).(bool)
	return may
}

type hurryKey struct{}

// Hurry returns ctx for a request that is not worth another try: somebody else can be asked.
func Hurry(ctx context.Context) context.Context { return context.WithValue(ctx, hurryKey{}, true) }

// Hurried reports whether ctx is from Hurry.
func Hurried(ctx context.Context) bool {
	hurried, _ := ctx.Value(hurryKey{}).(bool)
	return hurried
}
