package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
	"oci-proxy/transfer/wire"
)

// A remote is a member as a mesh.Peer.
type remote struct {
	client *Client
	id     string
}

var _ mesh.Peer = (*remote)(nil)

// ID implements mesh.Peer.
func (p *remote) ID() string { return p.id }

// Name implements mesh.Peer.
func (p *remote) Name() string { return p.client.member.name(p.id) }

// Fault implements mesh.Peer.
func (p *remote) Fault(err error) {
	if l, gone := p.client.links.to(p.id); gone == nil {
		p.client.strike(l, true, err)
	}
}

// get is small for a GET with a query.
func (p *remote) get(ctx context.Context, path string, q query, limit int64) (*answer, error) {
	return p.client.small(ctx, p.id, ask{method: http.MethodGet, path: root + path, query: q}, limit, p.client.times.call)
}

// Open implements mesh.Peer. Errors of Stream.Body are *mesh.PeerError.
func (p *remote) Open(ctx context.Context, ref oci.Ref, offset int64, terms mesh.Terms) (*oci.Stream, error) {
	c, asked := p.client, time.Now()
	l, resp, err := c.do(ctx, p.id, ask{
		method: http.MethodGet, path: root + "blobs/" + ref.Digest.String(),
		query: query{Ref: ref, Terms: terms}, span: wire.RangeFrom(offset), bulk: true,
	})
	if err != nil {
		return nil, err
	}
	if isPart(resp, terms.Part) {
		return p.part(ctx, l, resp, ref, terms.Part, asked)
	}
	s, err := p.stream(resp, ref, offset, terms.Feed, asked)
	if err != nil {
		_ = resp.Body.Close() // nothing of it is wanted
		return nil, c.garbled(l, err)
	}
	if s.Redirect != "" || s.Feeding.Feeder != "" {
		_ = resp.Body.Close() // it has none
		return s, nil
	}
	s.Body = &body{ReadCloser: resp.Body, ctx: ctx, peer: p, link: l, ref: ref, at: s.Offset, fed: terms.Feed.By != ""}
	return s, nil
}

// stream reads the header of a blob.
func (p *remote) stream(resp *http.Response, ref oci.Ref, offset int64, feed mesh.Feed, asked time.Time) (*oci.Stream, error) {
	prov, err := readProvenance(resp.Header, p.Name(), ref.Registry, asked)
	if err != nil {
		return nil, err
	}
	s := &oci.Stream{Size: -1, Host: prov.Host, Hit: prov.Origin == oci.PeerHit, At: prov.At, Via: prov.Via}
	if to := resp.Header.Get(headerRedirect); to != "" {
		if !isLocation(to) {
			return nil, errors.New("its redirect is not an HTTP address")
		}
		s.Redirect = to
		return s, nil
	}
	if s.Feeding, err = readFeeding(resp.Header, feed); err != nil || s.Feeding.Feeder != "" {
		return s, err
	}
	s.Offset, s.Size, err = wire.ReadSpanFrom(resp, max(offset, 0))
	return s, err
}

// A body is a blob's. If it ends early the peer has failed, unless it has no more
// of the blob than what came: then the registry may have broken off.
type body struct {
	io.ReadCloser
	ctx  context.Context // tells whether the caller gave up
	peer *remote
	link *link
	ref  oci.Ref
	at   int64 // how many bytes of the blob came
	fed  bool  // the peer feeds this node, until it leaves its own feeder
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.at += int64(n)
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, http.ErrBodyReadAfterClose) {
		return n, err
	}
	err = fmt.Errorf("the blob broke off: %w", err)
	c := b.peer.client
	if b.fed { // it may be well, and whoever placed this node knows another
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
		return n, c.fails(b.peer.id, err)
	}
	if !isGrave(err) && b.ctx.Err() == nil && b.spent() {
		return n, c.fails(b.peer.id, err)
	}
	return n, c.broken(b.ctx, b.link, err)
}

// spent reports whether the peer says that it has no more of the blob.
func (b *body) spent() bool {
	p, err := b.peer.Progress(b.ctx, b.ref)
	return err == nil && p.Offset <= b.at
}

// Peek implements mesh.Peer. It takes at most a second of what this node is awake, 2 s if
// the member has been late, 100 ms if it hangs, and 3 s more if it does not know this node yet.
func (p *remote) Peek(ctx context.Context, ref oci.Ref) (mesh.Presence, error) {
	for {
		presence, err := p.peek(ctx, ref)
		l, gone := p.client.links.to(p.id)
		if gone != nil || !l.strange(err) || ctx.Err() != nil {
			return presence, err
		}
	}
}

// peek is Peek for a member that knows this node.
func (p *remote) peek(ctx context.Context, ref oci.Ref) (mesh.Presence, error) {
	most := p.client.times.peek
	switch p.client.links.pulse(p.id) {
	case late:
		most = p.client.times.progress
	case hung:
		most = p.client.times.hung
	}
	ctx, end := wait.Within(ctx, most, errLate)
	defer end()
	a, err := p.client.small(ctx, p.id, ask{
		method: http.MethodHead, path: root + "blobs/" + ref.Digest.String(), query: query{Ref: ref, Terms: mesh.Terms{Held: true}},
	}, 0, 0)
	if err != nil {
		return mesh.Absent, err
	}
	presence, err := readPresence(a.Header)
	if err != nil {
		return mesh.Absent, p.client.garbled(a.link, err)
	}
	return presence, nil
}

// Progress implements mesh.Peer. It takes at most 2 s of what this node is awake. Without
// a digest it is a sign of life alone.
func (p *remote) Progress(ctx context.Context, ref oci.Ref) (mesh.Progress, error) {
	if ref.Digest == "" {
		ctx, end := wait.Within(ctx, p.client.times.progress, errLate)
		defer end()
		_, err := p.client.small(ctx, p.id, ask{method: http.MethodGet, path: root + "ping"}, 0, 0)
		return mesh.Progress{}, err
	}
	return p.progress(ctx, query{Ref: ref})
}

// Stat implements mesh.Peer.
func (p *remote) Stat(ctx context.Context, ref oci.Ref) (int64, oci.Provenance, error) {
	a, err := p.client.small(ctx, p.id, ask{
		method: http.MethodHead, path: root + "blobs/" + ref.Digest.String(), query: query{Ref: ref},
	}, 1<<62, p.client.times.call) // the length is the blob's; there is no body
	if err != nil {
		return 0, oci.Provenance{}, err
	}
	prov, err := p.provenance(a, ref)
	return a.ContentLength, prov, err
}

// provenance reads how an answer came about.
func (p *remote) provenance(a *answer, ref oci.Ref) (oci.Provenance, error) {
	prov, err := readProvenance(a.Header, p.Name(), ref.Registry, a.asked)
	if err != nil {
		return oci.Provenance{}, p.client.garbled(a.link, err)
	}
	return prov, nil
}

// A meaning is what a tag means, as it is sent.
type meaning struct {
	Digest    string `json:"digest"`
	MediaType string `json:"media_type"`
	Size      int64  `json:"size"`
	Loose     bool   `json:"loose,omitempty"` // by another Accept list than the one asked about
}

// Tag implements mesh.Peer.
func (p *remote) Tag(ctx context.Context, ref oci.Ref, accept []string) (*oci.Found, error) {
	a, err := p.get(ctx, "tags", query{Ref: ref, accept: accept}, maxJSON)
	if err != nil {
		return nil, err
	}
	prov, err := p.provenance(a, ref)
	if err != nil {
		return nil, err
	}
	m, err := readMeaning(a.body)
	if err != nil {
		return nil, p.client.garbled(a.link, err)
	}
	return &oci.Found{Manifest: oci.Manifest{Digest: digest.Digest(m.Digest), MediaType: m.MediaType}, Provenance: prov, Size: m.Size}, nil
}

// readMeaning reads what a tag means.
func readMeaning(b []byte) (m meaning, err error) {
	if err := json.Unmarshal(b, &m); err != nil || m.Size < -1 || m.Size > maxManifest || !isManifest(m.MediaType) {
		return meaning{}, errors.New("what it says about a tag is malformed")
	}
	if _, err := parseDigest(m.Digest); err != nil {
		return meaning{}, errors.New("it says that a tag means something that is not a digest")
	}
	return m, nil
}

// isManifest reports whether a media type may be a manifest's. Clients are told it
// on the peer's word alone. "" is not told: the manifest is asked for.
func isManifest(mediaType string) bool {
	return mediaType == "" || strings.HasPrefix(mediaType, "application/") && visible(mediaType, maxWord)
}

// Manifest implements mesh.Peer. The Found's digest is ref's: the bytes have not
// been checked against it.
func (p *remote) Manifest(ctx context.Context, ref oci.Ref, terms mesh.Terms) (*oci.Found, error) {
	a, err := p.get(ctx, "manifests/"+ref.Digest.String(), query{Ref: ref, Terms: terms}, maxManifest)
	if err != nil {
		return nil, err
	}
	prov, err := p.provenance(a, ref)
	if err != nil {
		return nil, err
	}
	mediaType := a.Header.Get("Content-Type")
	if !visible(mediaType, maxWord) {
		return nil, p.client.garbled(a.link, errors.New("its media type is malformed"))
	}
	return &oci.Found{
		Manifest:   oci.Manifest{Digest: ref.Digest, MediaType: mediaType, Bytes: a.body},
		Provenance: prov, Size: int64(len(a.body)),
	}, nil
}

// An offer is a blob that a node wants another to take, as it is sent.
type offer struct {
	Registry  string `json:"registry"`
	Digest    string `json:"digest"`
	MediaType string `json:"media_type,omitempty"`
	// Copy says that the sender goes on holding it. A member of an earlier version takes it
	// as what it is to keep.
	Copy bool `json:"copy,omitempty"`
	// Size is a copy's, in bytes. Members of earlier versions tell none.
	Size int64 `json:"size,omitempty"`
}

// Offer implements mesh.Peer. ctx alone bounds it, as the peer gets the whole
// blob before it answers.
func (p *remote) Offer(ctx context.Context, ref oci.Ref, mediaType string) error {
	return p.offer(ctx, offer{Registry: ref.Registry, Digest: ref.Digest.String(), MediaType: mediaType})
}

// OfferCopy asks a member to take a blob of that size in bytes that this node goes on
// holding, behind all else that it does. It is otherwise as mesh.Peer's Offer.
func OfferCopy(ctx context.Context, c *Client, id string, ref oci.Ref, mediaType string, size int64) error {
	return (&remote{c, id}).offer(ctx, offer{Registry: ref.Registry, Digest: ref.Digest.String(), MediaType: mediaType, Copy: true, Size: size})
}

// offer makes an offer.
func (p *remote) offer(ctx context.Context, o offer) error {
	b, err := json.Marshal(o)
	if err != nil || len(b) > maxOffer {
		return p.client.fails(p.id, errors.New("the offer is too long"))
	}
	_, err = p.client.small(ctx, p.id, ask{method: http.MethodPost, path: root + "offers", query: query{Ref: oci.Ref{Registry: o.Registry}}, body: b}, maxJSON, 0)
	return err
}

// Lost implements mesh.Peer. It takes at most 2 s.
func (p *remote) Lost(ctx context.Context, ref oci.Ref, as oci.Resource) error {
	_, err := p.client.small(ctx, p.id, ask{
		method: http.MethodPost, path: root + "refusals",
		query: query{Ref: ref, inList: ref.Digest != "", lost: true, blob: as == oci.BlobResource},
	}, 0, p.client.times.progress)
	return err
}

// Told implements mesh.Peer. It takes at most 2 s.
func (p *remote) Told(ctx context.Context, q oci.Question) error {
	_, err := p.client.small(ctx, p.id, ask{
		method: http.MethodPost, path: root + "refusals",
		query: query{Ref: q.Ref, inList: q.Digest != "", told: true, list: q.Query, accept: q.Accept},
	}, 0, p.client.times.progress)
	return err
}

// Refused implements mesh.Peer. It takes at most 2 s.
func (p *remote) Refused(ctx context.Context, ref oci.Ref) error {
	_, err := p.client.small(ctx, p.id, ask{
		method: http.MethodPost, path: root + "refusals", query: query{Ref: oci.Ref{Registry: ref.Registry, Repository: ref.Repository}},
	}, 0, p.client.times.progress)
	return err
}
