package node

import (
	"net/http"

	"oci-proxy/transfer"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wire"
)

// blobType is the media type of every blob: a registry's own could make a browser
// show it.
const blobType = "application/octet-stream"

// headBlob answers a HEAD of a blob.
func (a *api) headBlob(w http.ResponseWriter, r *http.Request, req oci.Request) error {
	b, err := a.fetcher.StatBlob(r.Context(), req.Ref)
	if err != nil {
		return err
	}
	noteWay(r, &b.Provenance)
	if b.Redirect != "" && !unchanged(r, req.Digest) {
		sendRedirect(w, req, b.Redirect)
		return nil
	}
	a.identify(w, req, req.Digest, b.Provenance)
	if unchanged(r, req.Digest) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Type", blobType)
	w.WriteHeader(wire.Span{Length: b.Size}.Describe(w.Header(), b.Size))
	return nil
}

// sendRedirect passes a registry's redirect on to the client.
func sendRedirect(w http.ResponseWriter, req oci.Request, location string) {
	h := w.Header()
	h.Set("Docker-Content-Digest", req.Digest.String())
	h.Set("Location", location)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// getBlob answers a GET of a blob.
func (a *api) getBlob(w http.ResponseWriter, r *http.Request, req oci.Request) error {
	if unchanged(r, req.Digest) {
		return a.headBlob(w, r, req)
	}
	b, err := a.fetcher.Blob(r.Context(), req.Ref)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // only read
	noteWay(r, &b.Provenance)
	if b.Redirect != "" {
		sendRedirect(w, req, b.Redirect)
		return nil
	}
	a.identify(w, req, req.Digest, b.Provenance)
	w.Header().Set("Content-Type", blobType)
	s := wire.SpanOf(r, b.Size(), etag(req.Digest))
	w.WriteHeader(s.Describe(w.Header(), b.Size()))
	if !s.Beyond {
		a.sendBlob(w, r, req, b, s)
	}
	return nil
}

// sendBlob sends the body. If it breaks off, the connection ends: by the server's
// hand if a length was promised, else by an abort, since nothing else would tell a
// part from the whole.
func (a *api) sendBlob(w http.ResponseWriter, r *http.Request, req oci.Request, b *transfer.Answer, s wire.Span) {
	k, err := b.Send(r.Context(), w, s.Offset, s.Length)
	a.fetcher.Sent(req.Registry, b.Origin, k)
	if err == nil {
		return
	}
	noteFailure(r, err)
	if s.Length < 0 {
		if r.ProtoMajor == 2 {
			wire.CutShort(r) // HTTP/2 would reset the stream, which containerd takes for a failure and not for a cut to mend
		}
		panic(http.ErrAbortHandler)
	}
}
