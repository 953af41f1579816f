package transfer_test

import (
	"bytes"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// Who brings a file vouches for the bytes that are in it, and not for those that only their
// digest is known of: content that a private registry brought is not unlocked by its name.
func TestAFileUnlocksOnlyWhatIsInIt(t *testing.T) {
	t.Parallel()
	secret := upstreamtest.New(t)
	content := random(90, 5000)
	d := secret.PutBlob("team/app", content)
	r := newRig(t, setup{registries: []*upstreamtest.Registry{secret}, private: func(registry string) bool { return registry == secret.Host() }})
	r.mustPull(oci.Ref{Registry: secret.Host(), Repository: "team/app", Digest: d}, content, oci.Miss)
	public := oci.Ref{Registry: r.registry.Host(), Repository: "open/app", Digest: d}
	for name, brought := range map[string][]byte{"nothing": {}, "a part": content[:4999], "other bytes": random(91, 5000), "more": append(bytes.Clone(content), 0)} {
		if err := r.Intake().Blob(t.Context(), []oci.Ref{public}, int64(len(brought)), bytes.NewReader(brought)); err == nil {
			t.Errorf("%s: taken in", name)
		}
		if _, _, err := r.pull(public, content, 0, -1); err == nil {
			t.Fatalf("%s: the private blob is served", name)
		}
	}
	other := public
	other.Repository = "open/other"
	if err := r.Intake().Blob(t.Context(), []oci.Ref{public, other}, int64(len(content)), bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []oci.Ref{public, other} {
		r.mustPull(ref, content, oci.Hit)
	}
}
