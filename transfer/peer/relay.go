package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
	"oci-proxy/transfer/wire"
)

// A relay is a member's way out.
type relay struct{ peer *remote }

var (
	_ mesh.Relayer = (*remote)(nil)
	_ oci.Upstream = relay{}
)

// Relay implements mesh.Relayer.
func (p *remote) Relay() oci.Upstream { return relay{p} }

// firsthand returns err as this node's own. The registry's failure counts as what the
// registry told this node: the member that asked for it has told nobody else.
func firsthand(registry string, err error) error {
	if errors.Is(err, wait.ErrFull) || errors.Is(err, wait.ErrTooLarge) {
		return oci.BusyError(registry, err)
	}
	e, ok := oci.AsError(err)
	if !ok {
		return err
	}
	own := *e
	own.Relayed = false
	return &own
}

// small asks for a small answer, and reads what it says of the registry's.
func (r relay) small(ctx context.Context, path string, q query, limit int64) (*answer, told, error) {
	q.mirror = oci.Mirrors(ctx)
	a, err := r.peer.get(ctx, path, q, limit)
	if err != nil {
		return nil, told{}, firsthand(q.Registry, err)
	}
	t, err := readTold(a.Header)
	if err != nil {
		return nil, t, r.peer.client.garbled(a.link, err)
	}
	return a, t, nil
}

// Open implements oci.Upstream. If the stream breaks off, nobody can tell who is to blame:
// the member, or the registry.
func (r relay) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	c := r.peer.client
	l, resp, err := c.do(ctx, r.peer.id, ask{
		method: http.MethodGet, path: root + "relay-blobs/" + ref.Digest.String(),
		query: query{Ref: ref, mirror: oci.Mirrors(ctx)}, span: wire.RangeFrom(offset), bulk: true,
	})
	if err != nil {
		return nil, firsthand(ref.Registry, err)
	}
	t, err := readTold(resp.Header)
	if err == nil && t.Redirect == "" && t.Offset != offset && t.Offset != 0 {
		err = errors.New("its stream does not begin where it was asked to")
	}
	if err != nil || t.Redirect != "" {
		_ = resp.Body.Close() // nothing of it is wanted
	}
	if err != nil {
		return nil, c.garbled(l, err)
	}
	s := r.stream(t)
	if s.Redirect == "" {
		s.Body = &relayed{resp.Body, r.peer}
	}
	return s, nil
}

// stream is the stream that an answer tells of, without its body.
func (r relay) stream(t told) *oci.Stream {
	return &oci.Stream{Offset: t.Offset, Size: t.Size, Host: t.Host, By: t.by(), Coding: t.Coding, Redirect: t.Redirect, Relay: r.peer.Name()}
}

// A relayed body is the registry's, by way of a member.
type relayed struct {
	io.ReadCloser
	peer *remote
}

// Read implements io.Reader.
func (b *relayed) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, http.ErrBodyReadAfterClose) {
		err = b.peer.client.fails(b.peer.id, fmt.Errorf("the registry's blob broke off on its way through it: %w", err))
	}
	return n, err
}

// Range implements oci.Upstream, for spans of at most 1 MiB. The bytes are those that the
// member signed.
func (r relay) Range(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	if span.Length > maxPart {
		return nil, &oci.Error{Kind: oci.Invalid, Registry: ref.Registry, Reason: "a range this long does not go through another node"}
	}
	c := r.peer.client
	a, err := c.small(ctx, r.peer.id, ask{
		method: http.MethodGet, path: root + "relay-blobs/" + ref.Digest.String(),
		query: query{Ref: ref, Terms: mesh.Terms{Part: span}, mirror: oci.Mirrors(ctx)}, span: wire.RangeFrom(span.Offset), bulk: true,
	}, span.Length, c.times.call)
	if err != nil {
		return nil, firsthand(ref.Registry, err)
	}
	t, err := readTold(a.Header)
	if err == nil && t.Redirect == "" && (t.Offset != span.Offset || int64(len(a.body)) != span.Length) {
		err = errors.New("its range is not the one asked for")
	}
	if err == nil && t.Redirect == "" && bodySum(a.body) != a.Header.Get(headerBody) { // even of an answer that is not signed
		err = errWrongBody
	}
	if err != nil {
		return nil, c.garbled(a.link, err)
	}
	s := r.stream(t)
	if s.Redirect == "" {
		s.Body = io.NopCloser(bytes.NewReader(a.body))
	}
	return s, nil
}

// named is what names a manifest, or a blob, in the parameters.
func named(ref oci.Ref, blob bool, accept []string) query {
	return query{Ref: ref, accept: accept, inList: ref.Digest != "", blob: blob}
}

// Stat implements oci.Upstream.
func (r relay) Stat(ctx context.Context, ref oci.Ref, blob bool, accept []string) (oci.Descriptor, error) {
	a, t, err := r.small(ctx, "relay-heads", named(ref, blob, accept), maxManifest)
	if err != nil {
		return oci.Descriptor{}, err
	}
	d := oci.Descriptor{Digest: t.digest(), MediaType: t.Type, Size: t.Size, By: t.by(), Redirect: t.Redirect}
	if len(a.body) > 0 {
		m, err := r.manifest(a, t, ref)
		if err != nil {
			return oci.Descriptor{}, err
		}
		d.Manifest = &m
	}
	if d.Digest == "" && ref.Tag != "" {
		return oci.Descriptor{}, mesh.Lied(r.peer, errors.New("it does not tell what the tag means"))
	}
	return d, nil
}

// Manifest implements oci.Upstream.
func (r relay) Manifest(ctx context.Context, ref oci.Ref, accept []string) (oci.Manifest, error) {
	a, t, err := r.small(ctx, "relay-manifests", named(ref, false, accept), maxManifest)
	if err != nil {
		return oci.Manifest{}, err
	}
	return r.manifest(a, t, ref)
}

// manifest returns the manifest in an answer. This node checks that it is what its digest
// names.
func (r relay) manifest(a *answer, t told, ref oci.Ref) (oci.Manifest, error) {
	if d := t.digest(); d == "" || ref.Digest != "" && d != ref.Digest || !oci.Matches(d, a.body) {
		return oci.Manifest{}, mesh.Lied(r.peer, errors.New("the manifest is not the one that its digest names"))
	}
	return oci.Manifest{Digest: t.digest(), MediaType: t.Type, Bytes: a.body, By: t.by()}, nil
}

// Tags implements oci.Upstream.
func (r relay) Tags(ctx context.Context, ref oci.Ref, q oci.Query, to oci.Sink) (*oci.Page, error) {
	return r.list(ctx, "relay-tags", query{Ref: ref, list: q}, to)
}

// Referrers implements oci.Upstream.
func (r relay) Referrers(ctx context.Context, ref oci.Ref, q oci.Query, to oci.Sink) (*oci.Page, error) {
	return r.list(ctx, "relay-referrers", query{Ref: ref, list: q, inList: true}, to)
}

// list gets a page.
func (r relay) list(ctx context.Context, path string, q query, to oci.Sink) (*oci.Page, error) {
	c := r.peer.client
	q.mirror = oci.Mirrors(ctx)
	a, err := c.into(ctx, r.peer.id, ask{method: http.MethodGet, path: root + path, query: q}, maxList, c.times.call, to)
	if err != nil {
		return nil, firsthand(q.Registry, err)
	}
	page, err := readPage(a.Header)
	if err != nil {
		return nil, c.garbled(a.link, err)
	}
	t, err := readTold(a.Header)
	if err != nil {
		return nil, c.garbled(a.link, err)
	}
	page.By = t.by()
	return page, nil
}
