package oci

import "github.com/opencontainers/go-digest"

// A Ref names a blob, a manifest or a repository of a registry.
type Ref struct {
	Registry   string        // canonical host[:port], for example "registry-1.docker.io"
	Repository string        // as upstream knows it, for example "library/nginx"
	Tag        string        // of a manifest asked for by tag, else ""
	Digest     digest.Digest // of a blob, or of a manifest asked for by digest, else ""
}

// A Content is a digest as one registry delivers it, whatever the repository.
type Content struct {
	Registry string
	Digest   digest.Digest
}

// Content returns what ref's digest names at its registry.
func (ref Ref) Content() Content { return Content{ref.Registry, ref.Digest} }

// Repo returns ref without tag and digest.
func (ref Ref) Repo() Ref { return Ref{Registry: ref.Registry, Repository: ref.Repository} }

// WellFormed reports whether ref names a registry and all its names follow their
// grammar. It does not look at the digest.
func (ref Ref) WellFormed() bool {
	return isRegistry(ref.Registry) && len(ref.Registry)+1+len(ref.Repository) <= maxName &&
		(ref.Repository == "" || isName(ref.Repository)) &&
		(ref.Tag == "" || isTag(ref.Tag))
}
