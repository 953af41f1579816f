package node

import (
	"net/http"
	"time"
)

// misframed says what of a request's form another hop may understand in
// another way, "" if nothing. This is no forward proxy, and a read has no body:
// what looks like either is how requests are smuggled past somebody.
func misframed(r *http.Request) string {
	switch {
	case r.Method == http.MethodConnect, r.URL.Scheme != "", r.URL.Host != "", r.URL.Opaque != "":
		return "this is no forward proxy: the request names a path"
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return "" // answered without a look at it
	case r.ContentLength != 0, len(r.TransferEncoding) > 0:
		return "a read has no body"
	}
	return ""
}

// unread makes sure that the rest of a body which nobody reads is not waited
// for: a client could keep its connection so for ever.
func unread(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 && len(r.TransferEncoding) == 0 {
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // a writer without deadlines has no connection
}

// bodyTimeout is how long a client may take for a body that nobody wants.
const bodyTimeout = time.Second

// refuseMisframed answers such a request and ends its connection.
func refuseMisframed(w http.ResponseWriter, reason string) {
	w.Header().Set("Connection", "close")
	writeError(w, http.StatusBadRequest, ociError{Code: "UNSUPPORTED", Message: reason})
}
