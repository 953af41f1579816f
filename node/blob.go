package node

import (
	"net/http"
	"time"

	"oci-proxy/transfer"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
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
	w.Header()["Content-Type"] = blobTypes
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
	b, err := a.open(r, req)
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
	w.Header()["Content-Type"] = blobTypes
	s := wire.Span{Length: b.Size()}
	if r.Header["Range"] != nil {
		spans := wire.SpansOf(r, b.Size(), w.Header()["Etag"][0])
		if len(spans) > 1 {
			a.sendParts(w, r, req, b, spans)
			return nil
		}
		s = spans[0]
	}
	noteSize(r, s.Length)
	w.WriteHeader(s.Describe(w.Header(), b.Size()))
	if !s.Beyond {
		a.sendBlob(w, r, req, b, s)
	}
	return nil
}

// open opens the blob, or the parts of it that are asked for.
func (a *api) open(r *http.Request, req oci.Request) (*transfer.Answer, error) {
	if r.Header.Get("Range") == "" {
		return a.fetcher.Blob(r.Context(), req.Ref)
	}
	return a.fetcher.Part(r.Context(), req.Ref, func(size int64) (wanted []oci.Span, rest int64) {
		for _, s := range wire.SpansOf(r, size, etag(req.Digest)) {
			if s.Partial {
				wanted = append(wanted, oci.Span{Offset: s.Offset, Length: s.Length})
			}
			if s.Open {
				rest = max(rest, s.Length)
			}
		}
		return wanted, rest
	})
}

// sendParts sends the parts of a blob, each with a header of its own. If one breaks off,
// the connection ends: a length was promised.
func (a *api) sendParts(w http.ResponseWriter, r *http.Request, req oci.Request, b *transfer.Answer, spans []wire.Span) {
	m := wire.NewMultipart(spans, b.Size(), blobType)
	w.WriteHeader(m.Describe(w.Header()))
	to := a.fetcher.Sending(w, req.Registry, b.Origin)
	for i, s := range spans {
		if _, err := w.Write(m.Before(i)); err != nil {
			noteFailure(r, err)
			return
		}
		if _, err := b.Send(r.Context(), to, s.Offset, s.Length); err != nil {
			noteFailure(r, err)
			return
		}
	}
	if _, err := w.Write(m.End()); err != nil {
		noteFailure(r, err)
	}
}

// lastRead is how long a client whose connection is cut short may take to read what
// has come.
const lastRead = 5 * time.Second

// sendBlob sends the body. If it breaks off, the connection ends: by the server's
// hand if a length was promised, else by an abort, since nothing else would tell a
// part from the whole. In HTTP/1.0, which nginx speaks to the servers behind it unless
// it is told otherwise, that takes a reset.
func (a *api) sendBlob(w http.ResponseWriter, r *http.Request, req oci.Request, b *transfer.Answer, s wire.Span) {
	end := func(bool) {}
	if s.Length < 0 && !r.ProtoAtLeast(1, 1) {
		end = wire.EndByReset(r)
	}
	_, err := b.Send(r.Context(), a.fetcher.Sending(w, req.Registry, b.Origin), s.Offset, s.Length)
	end(err == nil)
	if err == nil {
		return
	}
	noteFailure(r, err)
	if s.Length < 0 {
		if r.ProtoMajor == 2 {
			// HTTP/2 would reset the stream, which containerd takes for a failure and not
			// for a cut to mend. Closing the connection before the client has would
			// reset that.
			wire.CutShort(r)
			_ = wait.For(r.Context(), lastRead)
		}
		panic(http.ErrAbortHandler)
	}
}
