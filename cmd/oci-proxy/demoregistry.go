package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"path"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// A demoRegistry is a registry with one image. Only the demo's nodes ask it.
type demoRegistry struct {
	host     string
	manifest digest.Digest
	content  map[string]demoContent // by the last part of the path: a digest or a tag
	srv      *http.Server

	mu   sync.Mutex // guards the fields below; never held during I/O
	gets map[digest.Digest]int
}

// A demoContent is a manifest or a blob.
type demoContent struct {
	mediaType string
	bytes     []byte
}

// A demoDescriptor names a part of a manifest (OCI image spec, "Content
// Descriptors").
type demoDescriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

// The media types of the image (OCI image spec).
const (
	demoManifestType = "application/vnd.oci.image.manifest.v1+json"
	demoConfigType   = "application/vnd.oci.image.config.v1+json"
	demoLayerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// newDemoRegistry makes the image, and serves it on loopback until close.
func newDemoRegistry() (*demoRegistry, error) {
	r := &demoRegistry{content: map[string]demoContent{}, gets: map[digest.Digest]int{}}
	if err := r.makeImage(); err != nil {
		return nil, fmt.Errorf("making the demo's image: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the demo's registry: %w", err)
	}
	r.host = l.Addr().String()
	r.srv = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.srv.Serve(l) }() // ends at close
	return r, nil
}

func (r *demoRegistry) close() { _ = r.srv.Close() } // its clients are gone

// makeImage makes an image with three layers that docker can pull.
func (r *demoRegistry) makeImage() error {
	var layers []demoDescriptor
	var diffs []digest.Digest
	for i, size := range []int{1 << 10, 1 << 20, 4 << 20} {
		raw, packed, err := layer(fmt.Sprintf("demo/layer-%d", i+1), size)
		if err != nil {
			return err
		}
		diffs = append(diffs, digest.FromBytes(raw))
		layers = append(layers, r.put(demoLayerType, packed))
	}
	image, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": demoManifestType, "config": r.put(demoConfigType, image), "layers": layers,
	})
	if err != nil {
		return err
	}
	r.manifest = r.put(demoManifestType, manifest).Digest
	r.content["latest"] = r.content[r.manifest.String()]
	return nil
}

// put stores content under its digest.
func (r *demoRegistry) put(mediaType string, b []byte) demoDescriptor {
	d := digest.FromBytes(b)
	r.content[d.String()] = demoContent{mediaType, b}
	return demoDescriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

// layer makes a layer with one file of noise.
func layer(name string, size int) (raw, packed []byte, err error) {
	noise := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size >> 8)}).Read(noise) // never fails
	var tarred, zipped bytes.Buffer
	t := tar.NewWriter(&tarred)
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(size), Format: tar.FormatPAX}); err != nil {
		return nil, nil, err
	}
	if _, err := t.Write(noise); err != nil {
		return nil, nil, err
	}
	if err := t.Close(); err != nil {
		return nil, nil, err
	}
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(tarred.Bytes()); err != nil {
		return nil, nil, err
	}
	if err := z.Close(); err != nil {
		return nil, nil, err
	}
	return tarred.Bytes(), zipped.Bytes(), nil
}

// ServeHTTP answers GET and HEAD for /v2/, manifests and blobs.
func (r *demoRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if req.URL.Path == "/v2/" {
		return
	}
	c, ok := r.content[path.Base(req.URL.Path)]
	if !ok || !strings.HasPrefix(req.URL.Path, "/v2/"+demoImage+"/") || req.Method != http.MethodGet && req.Method != http.MethodHead {
		http.NotFound(w, req)
		return
	}
	d := digest.FromBytes(c.bytes)
	if req.Method == http.MethodGet {
		r.mu.Lock()
		r.gets[d]++
		r.mu.Unlock()
	}
	w.Header().Set("Content-Type", c.mediaType)
	w.Header().Set("Docker-Content-Digest", d.String())
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(c.bytes))
}

// blobGets returns how often each manifest and blob was requested.
func (r *demoRegistry) blobGets() map[digest.Digest]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.gets)
}
