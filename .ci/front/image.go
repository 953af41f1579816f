package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// pushImages pushes an image for each line "URL NAME SIZE" of in: to the registry
// at URL, as NAME:v1, with one layer of SIZE random bytes, which no registry has
// yet. For each it prints the name, the digests of manifest, layer and config,
// and the layer's size.
func pushImages(ctx context.Context, in io.Reader, out io.Writer) error {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var registry, name string
		var size int64
		if _, err := fmt.Sscan(lines.Text(), &registry, &name, &size); err != nil {
			return fmt.Errorf("reading which image to push: %w", err)
		}
		if err := pushImage(ctx, out, registry+"/v2/"+name, name, size); err != nil {
			return fmt.Errorf("pushing %s: %w", name, err)
		}
	}
	return nil
}

// pushImage pushes one image to the repository at the URL.
func pushImage(ctx context.Context, out io.Writer, repository, name string, size int64) error {
	layer, err := noiseLayer(size)
	if err != nil {
		return err
	}
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`, digestOf(layer))
	for _, blob := range [][]byte{layer, config} {
		if err := pushBlob(ctx, repository, blob); err != nil {
			return err
		}
	}
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int    `json:"size"`
	}
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     manifestType,
		"config":        descriptor{"application/vnd.oci.image.config.v1+json", digestOf(config), len(config)},
		"layers":        []descriptor{{"application/vnd.oci.image.layer.v1.tar", digestOf(layer), len(layer)}},
	})
	if err != nil {
		return err
	}
	if _, err := send(ctx, http.MethodPut, repository+"/manifests/v1", manifestType, manifest); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, name, digestOf(manifest), digestOf(layer), digestOf(config), len(layer))
	return err
}

// digestOf returns the digest of b.
func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// noiseLayer returns a layer of size bytes with one file of random bytes. If size is
// less than an archive needs, the file is empty.
func noiseLayer(size int64) ([]byte, error) {
	const around = 512 + 2*512 // the file's header and the archive's end
	noise := make([]byte, max(size-around, 0)/512*512)
	if _, err := rand.Read(noise); err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "noise", Mode: 0o644, Size: int64(len(noise))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(noise); err != nil {
		return nil, err
	}
	err := w.Close()
	return layer.Bytes(), err
}

// pushBlob uploads a blob in two requests.
func pushBlob(ctx context.Context, repository string, blob []byte) error {
	to, err := send(ctx, http.MethodPost, repository+"/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	query := to.Query()
	query.Set("digest", digestOf(blob))
	to.RawQuery = query.Encode()
	_, err = send(ctx, http.MethodPut, to.String(), "application/octet-stream", blob)
	return err
}

// send makes a request that has to succeed, and returns the answer's Location.
func send(ctx context.Context, method, to, mediaType string, body []byte) (*url.URL, error) {
	r, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusMultipleChoices {
		return nil, fmt.Errorf("%s %s: %s", method, r.URL.Path, resp.Status)
	}
	location, err := resp.Location()
	if err != nil {
		return r.URL, nil // not every answer has one
	}
	return location, nil
}
