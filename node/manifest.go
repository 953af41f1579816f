package node

import (
	"net/http"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wire"
)

// manifest answers a GET or HEAD of a manifest.
func (a *api) manifest(w http.ResponseWriter, r *http.Request, req oci.Request) error {
	head := r.Method == http.MethodHead
	m, err := a.fetcher.Manifest(r.Context(), req.Ref, accepted(r.Header), head)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }() // only read
	noteWay(r, &m.Provenance)
	a.identify(w, req, m.Digest, m.Provenance)
	if unchanged(r, m.Digest) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Type", oci.ShownType(m.MediaType))
	s := wire.SpanOf(r, m.Size, w.Header()["Etag"][0])
	noteSize(r, s.Length)
	w.WriteHeader(s.Describe(w.Header(), m.Size))
	if head || s.Beyond {
		return nil
	}
	from := m.Origin
	if confirmed(&m.Provenance) {
		from = oci.Hit // upstream was asked, but the bytes are the shard's
	}
	if _, err := m.Send(r.Context(), a.fetcher.Sending(w, req.Registry, from), s.Offset, s.Length); err != nil {
		noteFailure(r, err)
	}
	return nil
}
