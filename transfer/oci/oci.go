// Package oci holds what registries speak of, and nothing that acts on it.
//
// A client's path becomes a [Request] ([ParsePath]) and with it a [Ref], the name
// of a blob, a manifest or a repository of one registry. What a registry answers
// is a [Stream], a [Descriptor], a [Manifest] or a [Page]; what fails is an
// [Error]. Both say which [Party] spoke: the registry, its token server, its
// storage, or something between. [Provenance] says how this node came by what it
// serves. [Parts] lists what a manifest vouches for. The package does no I/O.
package oci
