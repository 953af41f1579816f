package peer

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wire"
)

// isPart reports whether an answer holds just the part asked for, and is signed with its
// bytes. A member of an earlier version, or one that does not know the blob's size, sends
// all that follows.
func isPart(resp *http.Response, part oci.Span) bool {
	return part.Length > 0 && resp.StatusCode == http.StatusPartialContent && resp.ContentLength == part.Length && resp.Header.Get(headerBody) != ""
}

// part reads a part of a blob to its end.
func (p *remote) part(ctx context.Context, l *link, resp *http.Response, ref oci.Ref, part oci.Span, asked time.Time) (*oci.Stream, error) {
	defer func() { _ = resp.Body.Close() }() // only read
	prov, err := readProvenance(resp.Header, p.Name(), ref.Registry, asked)
	if err != nil {
		return nil, p.client.garbled(l, err)
	}
	size, err := wire.ReadSpan(resp, wire.Span{Offset: part.Offset, Length: part.Length, Partial: true})
	if err != nil {
		return nil, p.client.garbled(l, err)
	}
	b, err := p.client.content(ctx, l, resp, part.Length)
	if err != nil {
		return nil, err
	}
	if bodySum(b) != resp.Header.Get(headerBody) { // even of an answer that is not signed
		return nil, p.client.garbled(l, errWrongBody)
	}
	return &oci.Stream{
		Body: io.NopCloser(bytes.NewReader(b)), Offset: part.Offset, Size: size,
		Host: prov.Host, Hit: prov.Origin == oci.PeerHit, At: prov.At, Via: prov.Via,
	}, nil
}
