package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// readPart gets a part of a blob as package excerpt does.
func readPart(ctx context.Context, p mesh.Peer, ref oci.Ref, part oci.Span) ([]byte, *oci.Stream, error) {
	s, err := p.Open(ctx, ref, part.Offset, mesh.Terms{Part: part})
	if err != nil {
		return nil, nil, err
	}
	b := make([]byte, part.Length)
	_, err = io.ReadFull(s.Body, b)
	return b, s, errors.Join(err, s.Body.Close())
}

func TestAPartOfABlobComesAlone(t *testing.T) {
	t.Parallel()
	for _, secured := range []bool{false, true} {
		r := newRig(t, setup{tls: secured})
		content := random(3, 4*mib)
		ref := r.ref(r.registry.PutBlob(repo, content))
		for _, part := range []oci.Span{{Offset: 0, Length: 1}, {Offset: 4*mib - 100, Length: 100}, {Offset: 1000, Length: mib}} {
			before := r.registry.BytesSent()
			b, s, err := readPart(t.Context(), r.b, ref, part)
			if err != nil || !bytes.Equal(b, content[part.Offset:part.End()]) || s.Offset != part.Offset || s.Size != 4*mib {
				t.Errorf("%+v: %d bytes, %+v, %v", part, len(b), s, err)
			}
			if n := r.registry.BytesSent() - before; n != part.Length {
				t.Errorf("%+v: the registry sent %d bytes", part, n)
			}
		}
		if _, _, err := pull(t.Context(), r.b, ref, 0, false); err != nil {
			t.Fatal(err)
		}
		r.registry.Down()
		b, s, err := readPart(t.Context(), r.b, ref, oci.Span{Offset: 2*mib + 5, Length: 1000})
		if err != nil || !bytes.Equal(b, content[2*mib+5:2*mib+1005]) || !s.Hit {
			t.Errorf("of what it holds: %d bytes, %+v, %v", len(b), s, err)
		}
	}
}

// Where the registry does not tell the size, and from members of earlier versions, all
// that follows comes, and the reader takes what it wants of that.
func TestAPartOfABlobWithoutASize(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.registry.Fault(upstreamtest.Fault{NoLength: true, IgnoreRange: true})
	content := random(3, 3*mib)
	ref := r.ref(r.registry.PutBlob(repo, content))
	b, s, err := readPart(t.Context(), r.b, ref, oci.Span{Offset: mib, Length: 5000})
	if err != nil || !bytes.Equal(b, content[mib:mib+5000]) || s.Offset != mib {
		t.Errorf("%d bytes, %+v, %v", len(b), s, err)
	}
}

// Bytes of a part that nobody can verify are signed: what another one on the way makes of
// them is refused.
func TestAPartThatWasChangedOnTheWayIsRefused(t *testing.T) {
	t.Parallel()
	part := oci.Span{Offset: 5, Length: 4}
	for name, answer := range map[string]http.HandlerFunc{
		"other bytes": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerBody, bodySum([]byte("good")))
			w.Header().Set("Content-Range", "bytes 5-8/10")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("evil"))
		},
		"another range": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerBody, bodySum([]byte("good")))
			w.Header().Set("Content-Range", "bytes 4-7/10")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("good"))
		},
		"a range past the end": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerBody, bodySum([]byte("good")))
			w.Header().Set("Content-Range", "bytes 5-8/7")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("good"))
		},
		"fewer bytes": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-7/10")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("goo"))
		},
		"no size": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerBody, bodySum([]byte("good")))
			w.Header().Set("Content-Range", "bytes 5-8/*")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("good"))
		},
	} {
		_, p := liar(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(headerMark, version)
			w.Header().Set("Content-Type", "application/octet-stream")
			answer(w, r)
		})
		if b, _, err := readPart(t.Context(), p, somewhere, part); err == nil {
			t.Errorf("%s: %q is taken", name, b)
		}
	}
}

func TestPartsAreReadStrictly(t *testing.T) {
	t.Parallel()
	const names = "registry=registry.example.com&repository=team/app&part="
	if q, err := parseQuery(names + "1048576"); err != nil || q.Part.Length != mib {
		t.Errorf("%+v, %v", q, err)
	}
	for _, v := range []string{"0", "-1", "1048577", "x", "9223372036854775808", "5&part=5"} {
		if q, err := parseQuery(names + v); err == nil {
			t.Errorf("%q is taken: %+v", v, q)
		}
	}
}
