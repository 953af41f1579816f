package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/config"
	"oci-proxy/node/gate"
	"oci-proxy/node/image"
	"oci-proxy/node/reply"
	"oci-proxy/node/rules"
	"oci-proxy/transfer"
	"oci-proxy/transfer/oci"
)

const (
	// importTime is how long the sender of a layout may send nothing.
	importTime = time.Minute
	// importManifests bounds all manifests of a layout together, in bytes: what they list
	// is in memory until the end.
	importManifests = 128 << 20
	// importPlaces bounds in how many repositories the content of a layout is, summed up over all of it: a few
	// names that mean the same, of which each lists much, would be more than any memory holds.
	importPlaces = 1 << 20
)

// ParseImage parses the name of an image as people write it, by the names that the config
// gives to registries.
func ParseImage(cfg *config.Config, name string) (oci.Ref, error) {
	return oci.ParseImage(name, names(cfg))
}

// image parses the name of an image of a registry that may be asked.
func (r *registries) image(name string) (oci.Ref, error) {
	ref, err := oci.ParseImage(name, r.names())
	if err == nil && !r.Asks(ref.Registry) {
		err = &oci.Error{Kind: oci.Denied, Registry: ref.Registry, Reason: notListed}
	}
	return ref, err
}

// typed reports whether a request has that Content-Type, and refuses it otherwise: a page
// in a browser can send such a type only if this node agrees.
func typed(w http.ResponseWriter, r *http.Request, want string) bool {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && kind == want {
		return true
	}
	reply.Fail(w, http.StatusUnsupportedMediaType, reply.Error{Code: "UNSUPPORTED", Message: "the request must have the Content-Type " + want})
	return false
}

// An imported is a line of the answer to /_/import: about an image, or at the end about
// all.
type imported struct {
	Image  string `json:"image,omitempty"`
	Digest string `json:"digest,omitempty"`
	Error  string `json:"error,omitempty"`
	Images int    `json:"images"` // so far
	Bytes  int64  `json:"bytes"`  // so far
	Done   bool   `json:"done,omitempty"`
}

// An importer takes images into the cache.
type importer struct {
	fetcher    *transfer.Fetcher
	registries *registries
	gate       *gate.Gate
	rules      *rules.Rules
	kept       func(oci.Kept) // hears of each blob and manifest that came; it answers at once
	log        *slog.Logger
}

// ServeHTTP answers POST /_/import: the cache takes in the images of an OCI image
// layout, a tar file as image.Layout writes it. The answer has a line of JSON for each
// image, and one at the end.
func (i *importer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !typed(w, r, "application/x-tar") {
		return
	}
	body := &steady{ReadCloser: r.Body, conn: http.NewResponseController(w)}
	layout, err := image.NewReader(body)
	if err != nil {
		reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "UNSUPPORTED", Message: err.Error()})
		return
	}
	t := newTaking(r.Context(), i.fetcher.Intake(), i.image(oci.Named(i.gate.User(r))))
	t.kept = i.kept
	err = t.all(layout)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out := json.NewEncoder(w)
	last := imported{Done: true, Images: t.images, Bytes: t.bytes}
	if err != nil {
		last.Error = err.Error()
	}
	for _, line := range append(t.lines, last) {
		if out.Encode(line) != nil {
			return // the client is gone
		}
	}
	i.log.InfoContext(r.Context(), "images imported", "images", t.images, "bytes", t.bytes, "client", i.gate.Address(r).String())
}

// image returns what parses the names of images that the user may pull.
func (i *importer) image(user oci.User) func(name string) (oci.Ref, error) {
	return func(name string) (oci.Ref, error) {
		ref, err := i.registries.image(name)
		if err == nil {
			err = i.rules.Refuse(user, ref)
		}
		return ref, err
	}
}

// A steady body may take any time altogether, but not stand still.
type steady struct {
	io.ReadCloser
	conn *http.ResponseController
}

// Read implements io.Reader.
func (p *steady) Read(b []byte) (int, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(importTime)) // a writer without deadlines has no connection
	n, err := p.ReadCloser.Read(b)
	if errors.Is(err, io.EOF) { // what follows has all the time that it needs
		_ = p.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

// A taking takes the images of one layout in.
type taking struct {
	ctx    context.Context
	intake transfer.Intake
	parse  func(name string) (oci.Ref, error)
	kept   func(oci.Kept)                     // as importer's
	repos  map[digest.Digest][]oci.Ref        // whose content it is, without tag and digest
	kinds  map[digest.Digest]image.Descriptor // of manifests
	held   map[digest.Digest]image.Manifest   // that came
	came   map[digest.Digest]bool             // manifests and blobs that are in the cache now
	needs  map[digest.Digest][]digest.Digest  // what a manifest cannot do without
	lines  []imported
	left   int64 // how many bytes of manifests may come
	places int   // how many repositories of content may come, as importPlaces
	images int
	bytes  int64
}

func newTaking(ctx context.Context, in transfer.Intake, parse func(string) (oci.Ref, error)) *taking {
	return &taking{
		ctx: ctx, intake: in, parse: parse, kept: func(oci.Kept) {}, left: importManifests, places: importPlaces, repos: map[digest.Digest][]oci.Ref{}, kinds: map[digest.Digest]image.Descriptor{},
		held: map[digest.Digest]image.Manifest{}, came: map[digest.Digest]bool{}, needs: map[digest.Digest][]digest.Digest{},
	}
}

// all takes in a layout. The error says why it ended early; what came before counts.
func (t *taking) all(l *image.Reader) error {
	for _, d := range l.Index.Manifests {
		t.kinds[d.Digest] = d
		name := d.Name()
		if name == "" && d.Repository() != "" {
			name = d.Repository()
		}
		if ref, err := t.parse(name); err == nil {
			if err := t.belongs(d.Digest, ref); err != nil {
				return err
			}
		}
	}
	for {
		d, size, r, err := l.Next()
		if errors.Is(err, io.EOF) {
			return t.finish(l.Index)
		}
		if err == nil {
			err = t.one(d, size, r)
		}
		if err != nil {
			return errors.Join(err, t.finish(l.Index))
		}
	}
}

// belongs notes that content belongs to ref's repository.
func (t *taking) belongs(d digest.Digest, ref oci.Ref) error {
	ref = ref.Repo()
	if slices.Contains(t.repos[d], ref) {
		return nil
	}
	if t.places == 0 {
		return fmt.Errorf("its content is in more than %d repositories, counted for each manifest and blob: import it in parts", importPlaces)
	}
	t.places--
	t.repos[d] = append(t.repos[d], ref)
	return nil
}

// one takes in a manifest or a blob.
func (t *taking) one(d digest.Digest, size int64, r io.Reader) error {
	if _, is := t.kinds[d]; is {
		return t.manifest(d, size, r)
	}
	refs := t.repos[d]
	if len(refs) == 0 {
		return nil // nothing in the layout lists it
	}
	named := make([]oci.Ref, len(refs))
	for i, ref := range refs {
		ref.Digest = d
		named[i] = ref
	}
	if err := t.intake.Blob(t.ctx, named, size, r); err != nil {
		return fmt.Errorf("the blob %s: %w", d, err)
	}
	t.came[d] = true
	t.bytes += size
	t.kept(oci.Kept{Ref: named[0], Size: size})
	return nil
}

// manifest takes in a manifest, and notes what it lists.
func (t *taking) manifest(d digest.Digest, size int64, r io.Reader) error {
	if size > image.MaxManifest {
		return fmt.Errorf("the manifest %s is larger than %d bytes", d, image.MaxManifest)
	}
	if t.left -= size; t.left < 0 {
		return fmt.Errorf("its manifests are larger than %d bytes together: import it in parts", importManifests)
	}
	b, err := io.ReadAll(io.LimitReader(r, size))
	if err != nil {
		return fmt.Errorf("the manifest %s: %w", d, err)
	}
	m, err := image.NewManifest(t.kinds[d].MediaType, d, b)
	if err != nil {
		return err
	}
	if len(t.repos[d]) == 0 {
		for _, ref := range t.repos[m.Refers] {
			if err := t.belongs(d, ref); err != nil {
				return err
			}
		}
	}
	manifests, blobs := m.Lists()
	for _, one := range manifests {
		if _, known := t.kinds[one.Digest]; !known {
			t.kinds[one.Digest] = one
		}
	}
	for _, one := range append(manifests, blobs...) {
		for _, ref := range t.repos[d] {
			if err := t.belongs(one.Digest, ref); err != nil {
				return err
			}
		}
	}
	for _, one := range blobs {
		t.needs[d] = append(t.needs[d], one.Digest)
	}
	for _, one := range oci.Parts(oci.KeptType(m.MediaType, b), b) { // as it is read when it is served
		if one.As == oci.BlobResource {
			t.needs[d] = append(t.needs[d], one.Digest)
		}
	}
	for _, ref := range t.repos[d] {
		ref.Digest = d
		if err := t.intake.Manifest(t.ctx, ref, m.MediaType, b); err != nil {
			return fmt.Errorf("the manifest %s: %w", d, err)
		}
	}
	if refs := t.repos[d]; len(refs) > 0 {
		ref := refs[0]
		ref.Digest = d
		t.kept(oci.Kept{Ref: ref, MediaType: m.MediaType, Size: size})
	}
	m.Content = nil
	t.held[d], t.came[d] = m, true
	t.bytes += size
	return nil
}

// vouch vouches for the manifests of which all came. A registry has what its manifests list,
// or it would not have taken them.
func (t *taking) vouch() {
	for d := range t.held {
		if t.whole(d) != nil {
			continue
		}
		for _, ref := range t.repos[d] {
			ref.Digest = d
			t.intake.Vouch(ref)
		}
	}
}

// finish names what came whole, and makes the lists.
func (t *taking) finish(x image.Index) error {
	t.vouch()
	tags := map[oci.Ref][]string{}
	for _, d := range x.Manifests {
		if name := d.Name(); name != "" {
			t.lines = append(t.lines, t.named(d, name, tags))
		}
	}
	for _, name := range x.Absent() {
		if ref, err := t.parse(name); err == nil && ref.Tag != "" {
			t.intake.Absent(ref)
		}
	}
	for repo, all := range tags {
		if err := t.intake.Tags(t.ctx, repo, all); err != nil {
			return fmt.Errorf("the list of tags of %s/%s: %w", repo.Registry, repo.Repository, err)
		}
	}
	return t.referrers(x)
}

// named gives an image its name, if all of it came.
func (t *taking) named(d image.Descriptor, name string, tags map[oci.Ref][]string) imported {
	line := imported{Image: name, Digest: d.Digest.String()}
	ref, err := t.parse(name)
	if err == nil {
		err = t.whole(d.Digest)
	}
	if err != nil {
		line.Error = err.Error()
		return line
	}
	if ref.Tag != "" {
		m := t.held[d.Digest]
		t.intake.Tag(ref, m.MediaType, m.Digest, m.Size)
		tags[ref.Repo()] = append(tags[ref.Repo()], ref.Tag)
	}
	t.images++
	line.Images, line.Bytes = t.images, t.bytes
	return line
}

// whole reports what is missing of a manifest. Manifests that an index lists may be
// missing, but not all of them.
func (t *taking) whole(d digest.Digest) error {
	if !t.came[d] {
		return fmt.Errorf("its manifest %s did not come", d)
	}
	for _, one := range t.needs[d] {
		if !t.came[one] {
			return fmt.Errorf("its blob %s did not come", one)
		}
	}
	for _, one := range append([]digest.Digest{d}, t.needs[d]...) {
		if !t.holds(one) {
			return fmt.Errorf("%s left the cache for what came after it: raise cache_max_size", one)
		}
	}
	return nil
}

// holds reports whether what came is in the cache for all whose it is.
func (t *taking) holds(d digest.Digest) bool {
	return !slices.ContainsFunc(t.repos[d], func(ref oci.Ref) bool {
		ref.Digest = d
		return !t.intake.Holds(ref)
	})
}

// referrers makes the lists of what refers to each manifest: there may be nothing, which
// clients want to hear too.
func (t *taking) referrers(x image.Index) error {
	about := map[digest.Digest][]json.RawMessage{}
	for _, d := range x.Manifests {
		m, here := t.held[d.Digest]
		if !here || m.Refers == "" {
			continue
		}
		raw, err := json.Marshal(m.Listed())
		if err != nil {
			return err
		}
		about[m.Refers] = append(about[m.Refers], raw)
	}
	for d := range t.held {
		for _, ref := range t.repos[d] {
			ref.Digest = d
			if err := t.intake.Referrers(t.ctx, ref, about[d]); err != nil {
				return fmt.Errorf("the list of what refers to %s: %w", d, err)
			}
		}
	}
	return nil
}
