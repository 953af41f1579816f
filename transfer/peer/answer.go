package peer

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"oci-proxy/transfer/wire"
)

// framing lists the headers that an answer's signature covers beside those of the
// protocol: all others that the client reads.
var framing = []string{headerVia, headerFilters, headerMark, "Content-Type", "Content-Range", "Content-Length", "Retry-After"}

// seal is an answer's signature, as it stands in headerAuth. It covers the
// signature of the request, the status and every header that the client reads. An
// answer to another request, or one of which anything was changed, has another
// seal. A small answer's body is covered by headerBody. A blob's is not: its digest
// names its bytes.
func (k key) seal(request []byte, status int, h http.Header) string {
	names := make([]string, 0, 2*len(framing))
	names = append(names, framing...)
	for name := range h {
		if strings.HasPrefix(name, headerPrefix) && name != headerAuth {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	m := with(make(message, 0, 1024), request)
	m = with(m, strconv.Itoa(status))
	for _, name := range names {
		m = with(m, name, strconv.Itoa(len(h[name])))
		for _, value := range h[name] {
			m = with(m, textproto.TrimString(value)) // as net/http sends it
		}
	}
	return fmt.Sprintf("v%s %x", version, sum(k.answer, m))
}

// bodySum is the value of headerBody.
func bodySum(body []byte) string {
	s := sha256.Sum256(body)
	return hex.EncodeToString(s[:])
}

// A reply is the answer to one request. It is signed when its header is written.
type reply struct {
	*wire.Paced
	key     key
	request []byte // the request's signature
}

// WriteHeader implements http.ResponseWriter.
func (w *reply) WriteHeader(status int) {
	h := w.Header()
	h.Set(headerMark, version)
	h.Set(headerAuth, w.key.seal(w.request, status, h))
	w.Paced.WriteHeader(status)
}

// An exchange is a request and what its answer has to be signed with.
type exchange struct {
	*http.Request
	key    key
	mac    []byte // the request's signature
	pinned bool   // TLS proves who answers
}

var (
	// errStranger: gossip has not told the other node of this one yet, or it is no member.
	errStranger  = errors.New("not a member, or one that does not know this node yet")
	errForeign   = errors.New("not a member: something else answers there, without the protocol's version")
	errUnsealed  = errors.New("the answer is not signed: either this is not a member, or it runs an older version, which works with peer_tls: true only")
	errWrongSeal = errors.New("the answer's signature is wrong: this is not a member that knows the cluster's secret")
	errWrongBody = errors.New("the answer's body is not what was signed")
)

// verify returns an error unless the answer is the member's own to this request.
func (x *exchange) verify(resp *http.Response) error {
	switch mark := resp.Header.Get(headerMark); {
	case mark == "" && resp.StatusCode == http.StatusNotFound:
		return fmt.Errorf("status %d without the protocol's version %s: %w", resp.StatusCode, version, errStranger)
	case mark != version:
		return fmt.Errorf("status %d: %w %s", resp.StatusCode, errForeign, version)
	}
	got := resp.Header.Values(headerAuth)
	switch {
	case len(got) == 0 && x.pinned: // an older member's
		return nil
	case len(got) == 0:
		return errUnsealed
	case len(got) > 1 || subtle.ConstantTimeCompare([]byte(got[0]), []byte(x.key.seal(x.mac, resp.StatusCode, resp.Header))) == 0:
		return errWrongSeal
	}
	return nil
}

// verifyBody returns an error unless a body of n bytes and that sum is what an answer
// that passed verify came with.
func verifyBody(resp *http.Response, n int64, sum string) error {
	want := resp.Header.Get(headerBody)
	if resp.Header.Get(headerAuth) == "" || want == "" && n == 0 || want == sum {
		return nil
	}
	return errWrongBody
}
