package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/config"
	"oci-proxy/node/gate"
	"oci-proxy/node/image"
	"oci-proxy/node/reply"
	"oci-proxy/node/rules"
	"oci-proxy/node/warm"
	"oci-proxy/transfer"
	"oci-proxy/transfer/oci"
)

const (
	// maxWarm bounds what is read of a request to warm images, in bytes.
	maxWarm = 1 << 20
	// warmWidth is how many blobs of an image are pulled at a time.
	warmWidth = 3
)

// A warmer pulls images into the cache before anybody asks for them.
type warmer struct {
	fetcher    *transfer.Fetcher
	registries *registries
	gate       *gate.Gate
	rules      *rules.Rules
	sites      sites
	log        *slog.Logger
	again      chan struct{} // the schedules are others now
}

// changed makes schedules that are others now count.
func (m *warmer) changed() {
	select {
	case m.again <- struct{}{}:
	default: // that is known already
	}
}

// ServeHTTP answers POST /_/warm, {"images": [NAME…], "platforms": [os/arch…]}: the
// images are pulled into the cache. The answer has a line of JSON for each image when it
// is done, and one at the end.
func (m *warmer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !typed(w, r, "application/json") {
		return
	}
	var ask struct {
		Images    []string `json:"images"`
		Platforms []string `json:"platforms"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxWarm)).Decode(&ask); err != nil || len(ask.Images) == 0 {
		reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "UNSUPPORTED", Message: `the body must be {"images": ["the name of an image", …], "platforms": ["linux/amd64", …]}`})
		return
	}
	want, err := image.Choose(ask.Platforms)
	if err != nil {
		reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "UNSUPPORTED", Message: err.Error()})
		return
	}
	m.log.InfoContext(r.Context(), "images are pulled into the cache", "images", len(ask.Images), "client", m.gate.Address(r).String())
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out, conn := json.NewEncoder(w), http.NewResponseController(w)
	warm.All(oci.CallerOf(r.Context()).As(oci.Named(m.gate.User(r))).Into(r.Context()), m.pull, ask.Images, want, func(l warm.Line) {
		_ = out.Encode(l) // the client may be gone: r's context says so
		_ = conn.Flush()
	})
}

// keep pulls the images of schedules until ctx ends.
func (m *warmer) keep(ctx context.Context, schedules []config.Warm) {
	var rules []warm.Rule
	for _, r := range schedules {
		want, err := image.Choose(r.Platforms)
		if err != nil {
			m.log.Error("images are not kept warm", "error", err) // the config is checked
			continue
		}
		rules = append(rules, warm.Rule{Images: r.Images, Every: r.Every, Platforms: want})
	}
	warm.Keep(oci.Caller{User: oci.Node}.Into(ctx), m.pullSparingly, rules, m.log)
}

// keepWarm pulls the images of the config's schedules until ctx ends. Schedules that change
// begin anew.
func keepWarm(ctx context.Context, n *Node) {
	for ctx.Err() == nil {
		round, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			n.warmer.keep(round, n.registries.cfg().Warm)
		}()
		select {
		case <-n.warmer.again:
		case <-ctx.Done():
		}
		stop()
		<-ended
	}
}

// errSpare: an image is not pulled by a schedule now.
var errSpare = errors.New("less than rate_limit_reserve is left of the registry's rate limit: the next round pulls it")

// pullSparingly is pull for a schedule: what is left of a registry's rate limit is for clients.
func (m *warmer) pullSparingly(ctx context.Context, name string, want image.Platforms) (means string, size int64, err error) {
	if ref, err := m.registries.image(name); err == nil && m.sites.of(ref.Registry).Spare {
		return "", 0, errSpare
	}
	return m.pull(ctx, name, want)
}

// pull pulls an image into the cache, with what refers to it, for the user that ctx names.
func (m *warmer) pull(ctx context.Context, name string, want image.Platforms) (means string, size int64, err error) {
	ref, err := m.registries.image(name)
	if err == nil {
		err = m.rules.Refuse(oci.CallerOf(ctx).User, ref)
	}
	if err != nil {
		return "", 0, err
	}
	from := stock{m.fetcher, ref}
	i, err := image.Walk(ctx, from, from.reference(), want)
	if err != nil {
		return "", 0, err
	}
	for _, one := range i.Manifests {
		size += one.Size
	}
	for _, b := range i.Blobs {
		size += b.Size
	}
	return i.Top.Digest.String(), size, from.blobs(ctx, i.Blobs)
}

// A stock is a repository, as image.Source: from the cache, or into it.
type stock struct {
	fetcher *transfer.Fetcher
	ref     oci.Ref
}

// reference is the tag or digest of the image.
func (s stock) reference() string {
	if s.ref.Digest != "" {
		return s.ref.Digest.String()
	}
	return s.ref.Tag
}

// to names what a reference means in the repository.
func (s stock) to(reference string) oci.Ref {
	ref := s.ref.Repo()
	if d := digest.Digest(reference); d.Validate() == nil {
		ref.Digest = d
	} else {
		ref.Tag = reference
	}
	return ref
}

// none marks the error that there is no such thing.
func none(err error) error {
	if oci.KindOf(err) == oci.NotFound {
		return fmt.Errorf("%w: %w", image.ErrNone, err)
	}
	return err
}

// Manifest implements image.Source.
func (s stock) Manifest(ctx context.Context, reference string) (image.Manifest, error) {
	found, err := s.fetcher.Manifest(ctx, s.to(reference), nil, false)
	if err != nil {
		return image.Manifest{}, none(err)
	}
	var b bytes.Buffer
	_, err = found.Send(ctx, &b, 0, found.Size)
	if err = errors.Join(err, found.Close()); err != nil {
		return image.Manifest{}, err
	}
	return image.NewManifest(oci.ShownType(found.MediaType), found.Digest, b.Bytes())
}

// Referrers implements image.Source.
func (s stock) Referrers(ctx context.Context, d digest.Digest) ([]image.Descriptor, error) {
	list, err := s.fetcher.Referrers(ctx, s.to(d.String()), "")
	if err != nil {
		return nil, none(err)
	}
	var b bytes.Buffer
	if err := errors.Join(list.Send(&b), list.Close()); err != nil {
		return nil, err
	}
	return image.ReadReferrers(b.Bytes())
}

// blobs pulls blobs into the cache.
func (s stock) blobs(ctx context.Context, all []image.Descriptor) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	slots := make(chan struct{}, warmWidth)
	var wg sync.WaitGroup
	for _, b := range all {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := s.blob(ctx, b.Digest); err != nil {
				stop(fmt.Errorf("the blob %s: %w", b.Digest, err))
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// blob pulls a blob into the cache.
func (s stock) blob(ctx context.Context, d digest.Digest) error {
	a, err := s.fetcher.Blob(ctx, s.to(d.String()))
	if err != nil {
		return err
	}
	if a.Redirect != "" {
		return errors.Join(errors.New("the registry's redirects go to clients (follow_redirects: false), so it is not cached"), a.Close())
	}
	if a.Origin == oci.Hit {
		return a.Close()
	}
	_, err = a.Send(ctx, io.Discard, 0, -1)
	return errors.Join(err, a.Close())
}
