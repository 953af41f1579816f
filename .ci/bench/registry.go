package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Registry has what the servers are asked for. All of it is made up as it is sent.
type Registry struct {
	Addr string // host:port

	sent atomic.Int64 // bytes of bodies

	mu      sync.Mutex
	content map[string]content // by the last part of the path
	pace    float64
	delay   time.Duration
}

// startRegistry listens on 127.0.0.1, and serves until ctx ends.
func startRegistry(ctx context.Context) (*Registry, error) {
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the registry: %w", err)
	}
	r := &Registry{Addr: l.Addr().String(), content: map[string]content{}}
	srv := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() { _ = srv.Serve(l) }() // ends when srv is closed
	return r, nil
}

// behave says how answers come from now on.
func (r *Registry) behave(pace float64, delay time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pace, r.delay = pace, delay
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	c, ok := r.content[filepath.Base(req.URL.Path)]
	pace, delay := r.pace, r.delay
	r.mu.Unlock()
	pause(req.Context(), delay)
	h := w.Header()
	h["Docker-Distribution-Api-Version"] = []string{"registry/2.0"}
	if !ok {
		http.Error(w, `{"errors":[{"code":"NOT_FOUND"}]}`, http.StatusNotFound)
		return
	}
	h["Content-Type"] = []string{c.mediaType}
	h["Docker-Content-Digest"] = []string{c.digest}
	h["Content-Length"] = []string{strconv.FormatInt(c.size, 10)}
	if req.Method == http.MethodHead {
		return
	}
	body := &paced{w, pace, time.Now(), 0}
	_ = c.writeTo(body) // a client may go
	r.sent.Add(body.sent)
}

// A paced writer is no faster than that, on the whole.
type paced struct {
	io.Writer
	pace  float64 // bytes a second, 0: no bound
	began time.Time
	sent  int64
}

// Write implements io.Writer.
func (p *paced) Write(b []byte) (int, error) {
	n, err := p.Writer.Write(b)
	if p.sent += int64(n); p.pace > 0 {
		time.Sleep(time.Until(p.began.Add(time.Duration(float64(p.sent) / p.pace * 1e9))))
	}
	return n, err
}

// content is made up from its number: blocks that begin with it and their own.
type content struct {
	number    uint64
	size      int64
	mediaType string
	digest    string
}

// block is the size of a block, and what is in all of them.
var block = bytes.Repeat([]byte("0123456789abcdef"), 64<<10/16)

// writeTo writes the content.
func (c content) writeTo(w io.Writer) error {
	if c.mediaType == manifestType {
		begin, end := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%x","size":2},"layers":[],"annotations":{"pad":"`,
			manifestType, sha256.Sum256([]byte("{}"))), `"}}`
		_, err := io.WriteString(w, begin+strings.Repeat("x", int(c.size)-len(begin)-len(end))+end)
		return err
	}
	b := bytes.Clone(block[:min(c.size, int64(len(block)))])
	binary.BigEndian.PutUint64(b, c.number)
	for left, i := c.size, uint64(0); left > 0; i++ {
		binary.BigEndian.PutUint64(b[8:], i)
		n, err := w.Write(b[:min(left, int64(len(b)))])
		if err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

// manifestType is the media type of all manifests.
const manifestType = "application/vnd.oci.image.manifest.v1+json"

// add makes content, which the registry has from now on, and returns its path's last part.
func (r *Registry) add(c content) (string, error) {
	hash := sha256.New()
	if err := c.writeTo(hash); err != nil {
		return "", err
	}
	c.digest = "sha256:" + hex.EncodeToString(hash.Sum(nil))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.content[c.digest] = c
	return c.digest, nil
}

// at returns what a path names.
func (r *Registry) at(path string) content {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.content[filepath.Base(path)]
}

// A resource is what a path names.
type resource struct{ verb, mediaType, name string }

var (
	blob     = resource{"blobs", "application/octet-stream", ""}
	manifest = resource{"manifests", manifestType, ""}
	tag      = resource{"manifests", manifestType, "latest"}
)

// push pushes what a path names to a registry, and what a manifest speaks of.
func (b *Bench) push(ctx context.Context, addr, path string) error {
	c := b.registry.at(path)
	if c.mediaType != manifestType {
		return pushBlob(ctx, addr, c.digest, c.size, c.writeTo)
	}
	config := []byte("{}")
	err := pushBlob(ctx, addr, fmt.Sprintf("sha256:%x", sha256.Sum256(config)), int64(len(config)), func(w io.Writer) error {
		_, err := w.Write(config)
		return err
	})
	if err != nil {
		return err
	}
	return send(ctx, http.MethodPut, "http://"+addr+path, manifestType, c.size, c.writeTo)
}

// pushBlob pushes a blob by one request (OCI distribution spec, "Single POST").
func pushBlob(ctx context.Context, addr, digest string, size int64, write func(io.Writer) error) error {
	return send(ctx, http.MethodPost, "http://"+addr+repository+"blobs/uploads/?digest="+digest, blob.mediaType, size, write)
}

// send sends what write writes.
func send(ctx context.Context, method, url, mediaType string, size int64, write func(io.Writer) error) error {
	in, out := io.Pipe()
	go func() { _ = out.CloseWithError(write(out)) }() // which is never an error
	req, err := http.NewRequestWithContext(ctx, method, url, in)
	if err != nil {
		return fmt.Errorf("pushing: %w", err)
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("%w: %s to a push of %s", errAnswer, resp.Status, url)
	}
	return nil
}

// root is the folder of the files that nginx serves.
func (b *Bench) root() string { return filepath.Join(b.Folder, "root") }

// repository is where everything is.
const repository = "/v2/bench/image/"

// one asks for the same all the time. nginx has it as a file.
func one(of resource, size int64) func(*Bench, int, int) ([]string, error) {
	return func(b *Bench, _, _ int) ([]string, error) {
		c := content{number: uint64(size), size: size, mediaType: of.mediaType}
		name, err := b.registry.add(c)
		if err != nil {
			return nil, err
		}
		if of.name != "" {
			b.registry.mu.Lock()
			b.registry.content[of.name] = b.registry.content[name]
			b.registry.mu.Unlock()
			name = of.name
		}
		file := filepath.Join(b.root(), repository, of.verb, name)
		if _, err := os.Stat(file); err == nil {
			return []string{repository + of.verb + "/" + name}, nil
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return nil, fmt.Errorf("making a folder: %w", err)
		}
		f, err := os.Create(file)
		if err != nil {
			return nil, fmt.Errorf("making a file: %w", err)
		}
		defer f.Close()
		return []string{repository + of.verb + "/" + name}, c.writeTo(f)
	}
}

// fresh asks for blobs that nobody has asked for.
func fresh(size int64) func(*Bench, int, int) ([]string, error) {
	return func(b *Bench, _, count int) (paths []string, err error) {
		for range count {
			last++
			name, err := b.registry.add(content{number: last, size: min(size, b.Largest<<20), mediaType: blob.mediaType})
			if err != nil {
				return nil, err
			}
			paths = append(paths, repository+"blobs/"+name)
		}
		return paths, nil
	}
}

// image asks for the layers of an image that nobody has asked for, again and again if there are
// more requests.
func image(b *Bench, round, _ int) ([]string, error) { return fresh(64<<20)(b, round, 16) }

// last is the number of the last blob that fresh made.
var last uint64 = 1 << 40

// shared lets all clients ask for one blob that nobody has asked for.
func shared(size int64) func(*Bench, int, int) ([]string, error) {
	return func(b *Bench, round, _ int) ([]string, error) { return fresh(size)(b, round, 1) }
}
