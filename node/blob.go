package node

import (
	"net/http"

	"oci-proxy/transfer"
	"oci-proxy/transfer/oci"
)

// blobType is the media type of every blob: a registry's own could make a
// browser show it.
const blobType = "application/octet-stream"

// headBlob answers a HEAD of a blob.
func (n *Node) headBlob(w http.ResponseWriter, r *http.Request, req oci.Request) error {
	b, err := n.fetcher.StatBlob(r.Context(), req.Ref)
	if err != nil {
		return err
	}
	noteWay(r, &b.Provenance)
	if b.Redirect != "" && !unchanged(r, req.Digest) {
		handOver(w, req, b.Redirect)
		return nil
	}
	n.identify(w, req, req.Digest, b.Provenance)
	if unchanged(r, req.Digest) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Type", blobType)
	span{n: b.Size}.begin(w, b.Size)
	return nil
}

// handOver hands a registry's redirect to the client.
func handOver(w http.ResponseWriter, req oci.Request, location string) {
	h := w.Header()
	h.Set("Docker-Content-Digest", req.Digest.String())
	h.Set("Location", location)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// getBlob answers a GET of a blob.
func (n *Node) getBlob(w http.ResponseWriter, r *http.Request, req oci.Request) error {
	if unchanged(r, req.Digest) {
		return n.headBlob(w, r, req)
	}
	a, err := n.fetcher.Blob(r.Context(), req.Ref)
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }() // only read
	noteWay(r, &a.Provenance)
	if a.Redirect != "" {
		handOver(w, req, a.Redirect)
		return nil
	}
	n.identify(w, req, req.Digest, a.Provenance)
	w.Header().Set("Content-Type", blobType)
	size := a.Size()
	s := spanOf(r, size, req.Digest)
	s.begin(w, size)
	if s.beyond {
		return nil
	}
	n.sendBlob(w, r, req, a, s)
	return nil
}

// sendBlob sends the body. If it breaks off the connection is closed: by the
// server where a length was promised, by an abort where nothing else would
// tell a whole body from a part.
func (n *Node) sendBlob(w http.ResponseWriter, r *http.Request, req oci.Request, a *transfer.Answer, s span) {
	k, err := a.Send(r.Context(), w, s.off, s.n)
	n.fetcher.Sent(req.Registry, a.Origin, k)
	if err == nil {
		return
	}
	noteFailure(r, err)
	if s.n < 0 {
		if c := connOf(r); r.ProtoMajor == 2 && c != nil {
			cutNow(c) // a reset stream, which HTTP/2 has for it, is a failure to containerd, and no cut to be mended
		}
		panic(http.ErrAbortHandler)
	}
}
