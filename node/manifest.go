package node

import (
	"cmp"
	"net/http"
	"oci-proxy/transfer/oci"
)

// manifest answers a GET or HEAD of a manifest.
func (n *Node) manifest(w http.ResponseWriter, r *http.Request, req oci.Request) error {
	head := r.Method == http.MethodHead
	m, err := n.fetcher.Manifest(r.Context(), req.Ref, accepted(r.Header), head)
	if err != nil {
		return err
	}
	noteWay(r, &m.Provenance)
	n.identify(w, req, m.Digest, m.Provenance)
	if unchanged(r, m.Digest) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Type", cmp.Or(oci.DocumentType(m.MediaType), blobType))
	s := spanOf(r, m.Size, m.Digest)
	s.begin(w, m.Size)
	if head || s.beyond {
		return nil
	}
	k, err := w.Write(m.Bytes[s.off : s.off+s.n])
	from := m.Origin
	if confirmed(&m.Provenance) {
		from = oci.Hit // upstream was asked, but the bytes are the shard's
	}
	n.fetcher.Sent(req.Registry, from, int64(k))
	if err != nil {
		noteFailure(r, err)
	}
	return nil
}
