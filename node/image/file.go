package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A File is a layout in a tar file, written by whatever program. Close it.
type File struct {
	file    *os.File
	spooled bool // the file is a temporary one
	index   Index
	at      map[digest.Digest]*io.SectionReader
}

// OpenFile opens a layout. A file that is compressed by gzip is first unpacked into a
// temporary file.
func OpenFile(name string) (*File, error) {
	raw, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	f := &File{file: raw, at: map[digest.Digest]*io.SectionReader{}}
	if err = f.unpack(); err == nil {
		err = f.list()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading %s: %w", name, err), f.Close())
	}
	return f, nil
}

// Close closes the file.
func (f *File) Close() error {
	err := f.file.Close()
	if f.spooled {
		err = errors.Join(err, os.Remove(f.file.Name()))
	}
	return err
}

// unpack replaces a compressed file by an unpacked one.
func (f *File) unpack() error {
	in := bufio.NewReader(f.file)
	if magic, err := in.Peek(2); err != nil || !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		_, err := f.file.Seek(0, io.SeekStart)
		return err
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	out, err := os.CreateTemp("", "oci-proxy-import-")
	if err != nil {
		return err
	}
	packed := f.file
	f.file, f.spooled = out, true
	_, err = io.Copy(out, z) // the operator's own file; the disk bounds it
	if err == nil {
		_, err = out.Seek(0, io.SeekStart)
	}
	return errors.Join(err, packed.Close())
}

// list finds what lies where in the file.
func (f *File) list() error {
	found := false
	for t := tar.NewReader(f.file); ; {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF) && !found:
			return errNoIndex
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if path.Clean(h.Name) == IndexName {
			if f.index, err = readIndex(t); err != nil {
				return err
			}
			found = true
		}
		d := digestOf(h.Name)
		if d == "" || h.Typeflag != tar.TypeReg {
			continue
		}
		at, err := f.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		f.at[d] = io.NewSectionReader(f.file, at, h.Size)
	}
}

// Layout returns the images of the file, in the order of a Layout. as is the name of an
// image without a name, or of one that has only a tag; it may be "".
func (f *File) Layout(as string) (*Layout, error) {
	l := NewLayout()
	l.index.Annotations = f.index.Annotations
	var named, others []Descriptor
	for _, d := range f.index.Manifests {
		name, err := f.nameOf(d, as)
		switch {
		case err != nil:
			return nil, err
		case name != "":
			d.Annotations = map[string]string{refName: name, fullName: name}
			named = append(named, d)
		default:
			others = append(others, d)
		}
	}
	l.index.Manifests = append(named, others...)
	for _, d := range l.index.Manifests {
		if err := f.add(l, d, 1); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// nameOf is the name of an entry, "" for what belongs to another entry.
func (f *File) nameOf(d Descriptor, as string) (string, error) {
	name := d.Name()
	switch {
	case strings.ContainsAny(name, ":/@"):
		return name, nil
	case name == "" && (d.Repository() != "" || f.refers(d)):
		return "", nil
	case as == "":
		return "", fmt.Errorf("the image %s in it has no name; give one with -as, such as -as ghcr.io/org/app:v1", d.Digest)
	case name == "" || strings.Contains(path.Base(as), ":"):
		return as, nil
	default:
		return as + ":" + name, nil
	}
}

// refers reports whether the entry refers to another manifest.
func (f *File) refers(d Descriptor) bool {
	m, err := f.manifest(d)
	return err == nil && m.Refers != ""
}

// manifest reads a manifest of the file.
func (f *File) manifest(d Descriptor) (Manifest, error) {
	at := f.at[d.Digest]
	if at == nil {
		return Manifest{}, fmt.Errorf("the manifest %s is not in the file", d.Digest)
	}
	if at.Size() > MaxManifest {
		return Manifest{}, fmt.Errorf("the manifest %s is larger than %d bytes", d.Digest, MaxManifest)
	}
	b, err := io.ReadAll(io.NewSectionReader(at, 0, at.Size()))
	if err != nil {
		return Manifest{}, err
	}
	return NewManifest(d.MediaType, d.Digest, b)
}

// add adds a manifest, which lies so deep in indexes, that of the file counted, and what it lists. Manifests of an
// index may be missing: they are of platforms that nobody wanted.
func (f *File) add(l *Layout, d Descriptor, depth int) error {
	if l.seen[d.Digest] || f.at[d.Digest] == nil && depth > 1 {
		return nil
	}
	if depth > maxDepth {
		return errDeep
	}
	m, err := f.manifest(d)
	if err != nil {
		return err
	}
	l.seen[d.Digest] = true
	l.manifests = append(l.manifests, m)
	manifests, blobs := m.Lists()
	for _, one := range manifests {
		if err := f.add(l, one, depth+1); err != nil {
			return err
		}
	}
	for _, b := range blobs {
		at := f.at[b.Digest]
		switch {
		case at == nil:
			return fmt.Errorf("the blob %s of the manifest %s is not in the file", b.Digest, d.Digest)
		case !l.seen[b.Digest]:
			l.seen[b.Digest] = true
			b.Size = at.Size()
			l.blobs = append(l.blobs, Blob{Descriptor: b})
		}
	}
	return nil
}

// Open opens a blob of the file.
func (f *File) Open(b Blob) (io.ReadCloser, error) {
	at := f.at[b.Digest]
	if at == nil {
		return nil, errors.New("it is not in the file")
	}
	return io.NopCloser(io.NewSectionReader(at, 0, at.Size())), nil
}
