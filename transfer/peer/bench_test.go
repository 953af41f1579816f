package peer

import (
	"io"
	"syscall"
	"testing"
	"time"

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
			before, n := worked(b), 0
			for ; b.Loop(); n++ {
				s, err := r.b.Open(b.Context(), ref, 0, mesh.Terms{Held: true})
				if err != nil {
					b.Fatal(err)
				}
				if k, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s.Body, buf); k != size || err != nil {
					b.Fatalf("%d bytes, %v", k, err)
				}
				_ = s.Body.Close()
			}
			b.ReportMetric((worked(b)-before).Seconds()/float64(n)/size*1e9, "cpu-s/GB")
		})
	}
}

// worked returns what this process has worked so far: both ends of what is measured. Unlike the
// time that it took, that means something on a busy machine.
func worked(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
