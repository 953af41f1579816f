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
		return "" // its body is never read
	case r.ContentLength != 0, len(r.TransferEncoding) > 0:
		return "a GET or HEAD must not have a body"
	}
	return ""
}

// refuseMisframed answers a misframed request and ends its connection.
func refuseMisframed(w http.ResponseWriter, reason string) {
	w.Header().Set("Connection", "close")
	reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "UNSUPPORTED", Message: reason})
}

// BodyTimeout is how long a client may take to send a body, which no request
// needs.
const BodyTimeout = time.Second

// boundBody bounds the wait for a body that nobody reads. Without it a client
// could hold its connection forever.
func boundBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 && len(r.TransferEncoding) == 0 {
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(BodyTimeout)) // a writer without deadlines has no connection
}
