package gate

import (
	"net/http"
	"time"

	"oci-proxy/node/reply"
)

// misframed says what in a request's form another hop could read in another way,
// "" if nothing. This is no forward proxy, and a read has no body: what looks
// like either is used to smuggle requests past another hop.
func misframed(r *http.Request) string {
	switch {
	case r.Method == http.MethodConnect, r.URL.Scheme != "", r.URL.Host != "", r.URL.Opaque != "":
		return "this is no forward proxy: send the path of the URL only"
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return "" // endUnclear sees to what follows its body
	case hasBody(r):
		return "a GET or HEAD must not have a body"
	}
	return ""
}

// endUnclear ends the connection after a request whose end another hop could see
// in another place. What follows such a request is never read as another one.
//
//   - A request with a body: net/http hides a Content-Length beside a
//     Transfer-Encoding (RFC 9112 section 6.1), and most bodies are not read.
//   - HTTP/1.0: net/http ignores a Transfer-Encoding there, and hides it.
//
// HTTP/2 frames each request by itself, so its connections stay.
func endUnclear(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor < 2 && (hasBody(r) || !r.ProtoAtLeast(1, 1)) {
		w.Header().Set("Connection", "close")
	}
}

// hasBody reports whether a body follows the request's header, or may follow it.
func hasBody(r *http.Request) bool { return r.ContentLength != 0 || len(r.TransferEncoding) > 0 }

// refuseMisframed answers a misframed request and ends its connection.
func refuseMisframed(w http.ResponseWriter, reason string) {
	w.Header().Set("Connection", "close")
	reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "UNSUPPORTED", Message: reason})
}

// boundBody bounds the wait for a body that nobody reads. Without it a client
// could hold its connection forever.
func boundBody(w http.ResponseWriter, r *http.Request) {
	if !hasBody(r) {
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(BodyTimeout)) // a writer without deadlines has no connection
}
