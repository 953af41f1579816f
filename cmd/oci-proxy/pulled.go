package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/image"
)

// A pulled repository is one that a running node serves. It implements image.Source.
type pulled struct {
	node                 target
	registry, repository string
}

// accepts are the types of manifests that are pulled.
var accepts = []string{
	"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json", "*/*",
}

// get gets what a path below the repository names.
func (p *pulled) get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	resp, err := p.node.do(ctx, http.MethodGet, "/v2/"+p.repository+"/"+path+"?ns="+url.QueryEscape(p.registry), header, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }() // only read
	_, err = answered(resp)
	if resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%w: %w", image.ErrNone, err)
	}
	return nil, err
}

// small is get for an answer that is read whole, as large as a manifest at most.
func (p *pulled) small(ctx context.Context, path string, header http.Header) (http.Header, []byte, error) {
	resp, err := p.get(ctx, path, header)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, image.MaxManifest+1))
	if err == nil && len(body) > image.MaxManifest {
		err = fmt.Errorf("%s is larger than %d bytes", path, image.MaxManifest)
	}
	return resp.Header, body, err
}

// Manifest implements image.Source.
func (p *pulled) Manifest(ctx context.Context, reference string) (image.Manifest, error) {
	header, body, err := p.small(ctx, "manifests/"+reference, http.Header{"Accept": accepts})
	if err != nil {
		return image.Manifest{}, err
	}
	d := digest.Digest(header.Get("Docker-Content-Digest"))
	if strings.Contains(reference, ":") {
		d = digest.Digest(reference)
	}
	return image.NewManifest(header.Get("Content-Type"), d, body)
}

// Referrers implements image.Source.
func (p *pulled) Referrers(ctx context.Context, d digest.Digest) ([]image.Descriptor, error) {
	_, body, err := p.small(ctx, "referrers/"+d.String(), http.Header{})
	if err != nil {
		return nil, err
	}
	return image.ReadReferrers(body)
}

// blob opens a blob.
func (p *pulled) blob(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	resp, err := p.get(ctx, "blobs/"+d.String(), http.Header{})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
