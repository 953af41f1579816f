package peer

import (
	"io"
	"testing"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// BenchmarkBlob reads a blob that the peer holds, in pieces as a download does.
func BenchmarkBlob(b *testing.B) {
	const size = 64 * mib
	for name, tls := range map[string]bool{"plain": false, "tls": true} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, setup{tls: tls})
			ref := r.ref(r.registry.PutRandomBlob(repo, 1, size))
			settle(b, r, ref)
			buf := make([]byte, mib)
			b.SetBytes(size)
			for b.Loop() {
				s, err := r.b.Open(b.Context(), ref, 0, mesh.Terms{Held: true})
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s.Body, buf); n != size || err != nil {
					b.Fatalf("%d bytes, %v", n, err)
				}
				_ = s.Body.Close()
			}
		})
	}
}

// BenchmarkProgress makes the smallest call: signed both ways, with a body.
func BenchmarkProgress(b *testing.B) {
	for name, tls := range map[string]bool{"plain": false, "tls": true} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, setup{tls: tls})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.b.Progress(b.Context(), somewhere); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAdmit checks a request's signature, as the server does.
func BenchmarkAdmit(b *testing.B) {
	var k keys
	k.set([][]byte{secret})
	s := good(1).statement
	s.path, s.query = root+"blobs/"+somewhere.Digest.String(), query{Ref: oci.Ref{Registry: "ghcr.io", Repository: repo}}.encode()
	mac := s.sign(k.all()[0])
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.signedBy(k.all(), mac); !ok {
			b.Fatal("not signed")
		}
	}
}
