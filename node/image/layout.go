package image

import (
	"archive/tar"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The files of an OCI image layout (OCI image spec, "OCI Image Layout Specification"),
// and the list that docker load reads where docker keeps images in its older way.
const (
	markName   = "oci-layout"
	IndexName  = "index.json"
	dockerName = "manifest.json"
	blobsName  = "blobs/"
)

// The annotations of a layout's index: how images are called, by the standard and by
// containerd and docker; and our own: the name of what is no image, which repository a
// manifest without a name belongs to, and tags that are not there.
const (
	refName       = "org.opencontainers.image.ref.name"
	fullName      = "io.containerd.image.name"
	ownName       = "io.oci-proxy.name"
	ownRepository = "io.oci-proxy.repository"
	ownAbsent     = "io.oci-proxy.absent"
)

const indexType = "application/vnd.oci.image.index.v1+json"

// MaxIndex bounds the index of a layout, in bytes: enough for 20000 images.
const MaxIndex = 8 << 20

// An Index is the index of a layout, as it is in index.json.
type Index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     Descriptors       `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Name returns what an entry of the index is called: registry/repository:tag, or with a
// digest; only a tag where the program that wrote it knew no more; "" for nothing.
func (d Descriptor) Name() string {
	return cmp.Or(d.Annotations[fullName], d.Annotations[ownName], d.Annotations[refName])
}

// Repository returns the registry/repository of an entry without a name, "" if the
// layout is not ours.
func (d Descriptor) Repository() string { return d.Annotations[ownRepository] }

// Absent lists the tags, with registry and repository, that the layout says are not
// there.
func (x Index) Absent() []string { return strings.Fields(x.Annotations[ownAbsent]) }

// A Layout collects images for a file.
type Layout struct {
	index     Index
	manifests []Manifest
	blobs     []Blob
	seen      map[digest.Digest]bool
	docker    []dockerImage
	absent    []string
}

// A Blob is a config or a layer, and a repository that has it.
type Blob struct {
	Descriptor
	Repository string // registry/repository
}

// A dockerImage is an image in manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// NewLayout returns a Layout without images.
func NewLayout() *Layout {
	return &Layout{seen: map[digest.Digest]bool{}, index: Index{SchemaVersion: 2, MediaType: indexType, Annotations: map[string]string{}}}
}

// Add adds an image of a repository (registry/repository). reference is :tag or @digest.
func (l *Layout) Add(repository, reference string, i *Image) {
	l.name(i.Top, repository+reference, true)
	for tag, d := range i.Tags {
		for _, m := range i.Manifests {
			if m.Digest == d {
				l.name(m.Descriptor, repository+":"+tag, false)
			}
		}
	}
	listed := map[digest.Digest]bool{i.Top.Digest: true}
	for _, all := range i.Lists {
		for _, d := range all {
			if !listed[d.Digest] {
				listed[d.Digest] = true
				d.Annotations = map[string]string{ownRepository: repository}
				l.index.Manifests = append(l.index.Manifests, d)
			}
		}
	}
	for _, tag := range i.Absent {
		l.absent = append(l.absent, repository+":"+tag)
	}
	for _, m := range i.Manifests {
		if !l.seen[m.Digest] {
			l.seen[m.Digest] = true
			l.manifests = append(l.manifests, m)
		}
	}
	for _, b := range i.Blobs {
		if !l.seen[b.Digest] {
			l.seen[b.Digest] = true
			l.blobs = append(l.blobs, Blob{b, repository})
		}
	}
	l.addDocker(repository+reference, i)
}

// name adds an entry to the index. What is no image must not be unpacked as one: containerd
// unpacks all that has a name it knows.
func (l *Layout) name(d Descriptor, name string, unpacked bool) {
	d.Annotations = map[string]string{ownName: name}
	if unpacked {
		d.Annotations = map[string]string{refName: name, fullName: name}
	}
	l.index.Manifests = append(l.index.Manifests, d)
}

// addDocker adds the image of the first platform to manifest.json, which knows no
// others.
func (l *Layout) addDocker(name string, i *Image) {
	for _, m := range i.Manifests {
		doc := m.read()
		if doc.Config == nil || len(doc.Layers) == 0 || doc.Subject != nil || !strings.Contains(doc.Config.MediaType, "image") {
			continue
		}
		d := dockerImage{Config: fileOf(doc.Config.Digest), RepoTags: []string{name}}
		if strings.Contains(name, "@") {
			d.RepoTags = nil
		}
		for _, layer := range doc.Layers {
			d.Layers = append(d.Layers, fileOf(layer.Digest))
		}
		l.docker = append(l.docker, d)
		return
	}
}

// Blobs lists the blobs, in the order in which Write asks for them.
func (l *Layout) Blobs() []Blob { return l.blobs }

// fileOf is where content lies in a layout.
func fileOf(d digest.Digest) string {
	return blobsName + d.Algorithm().String() + "/" + d.Encoded()
}

// Write writes the layout as a tar file. open gives the bytes of a blob; they are
// checked. The index comes first, then manifests, each before what it lists, then
// blobs, so that a reader knows what each blob is when it comes.
func (l *Layout) Write(w io.Writer, open func(Blob) (io.ReadCloser, error)) error {
	if len(l.absent) > 0 {
		l.index.Annotations[ownAbsent] = strings.Join(l.absent, " ")
	}
	t := tar.NewWriter(w)
	files := []struct {
		name string
		v    any
	}{{markName, map[string]string{"imageLayoutVersion": "1.0.0"}}, {IndexName, l.index}, {dockerName, l.docker}}
	for _, f := range files {
		b, err := json.Marshal(f.v)
		if err != nil {
			return err
		}
		if err := writeFile(t, f.name, b); err != nil {
			return err
		}
	}
	for _, m := range l.manifests {
		if err := writeFile(t, fileOf(m.Digest), m.Content); err != nil {
			return err
		}
	}
	for _, b := range l.blobs {
		if err := writeBlob(t, b, open); err != nil {
			return fmt.Errorf("writing the blob %s of %s: %w", b.Digest, b.Repository, err)
		}
	}
	return t.Close()
}

// writeFile writes a small file.
func writeFile(t *tar.Writer, name string, b []byte) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(b))}); err != nil {
		return err
	}
	_, err := t.Write(b)
	return err
}

// errSize: a blob is not as large as its manifest says.
var errSize = errors.New("it is not as large as its manifest says")

// writeBlob writes a blob, and checks it against its digest.
func writeBlob(t *tar.Writer, b Blob, open func(Blob) (io.ReadCloser, error)) error {
	r, err := open(b)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // only read
	if err := t.WriteHeader(&tar.Header{Name: fileOf(b.Digest), Typeflag: tar.TypeReg, Mode: 0o644, Size: b.Size}); err != nil {
		return err
	}
	verifier := b.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(t, verifier), io.LimitReader(r, b.Size))
	if err != nil {
		return err
	}
	if more, err := io.CopyN(io.Discard, r, 1); n < b.Size || more > 0 {
		return errors.Join(errSize, ignoreEOF(err))
	}
	if !verifier.Verified() {
		return errors.New("its bytes are not those that the digest names")
	}
	return nil
}

// ignoreEOF returns err unless it is the end.
func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// digestOf returns the digest of a file of a layout, "" if it is no blob.
func digestOf(name string) digest.Digest {
	rest, ok := strings.CutPrefix(path.Clean(name), blobsName)
	algorithm, hex, two := strings.Cut(rest, "/")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	if !ok || !two || d.Validate() != nil {
		return ""
	}
	return d
}
