package peer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"oci-proxy/transfer/wire"
)

// A gate lets in the fresh requests that members signed.
type gate struct {
	nonce   []byte // this node's boot
	member  roster
	keys    keys
	replays *replays
	vault   bool // requests about certificates are answered, which may be larger
}

// A call is a request that was let in.
type call struct {
	*http.Request
	query
	path   string // behind the root
	raw    string // the query as it came
	sender string // its id
	key    key    // the request is signed with it, and so is the answer
	mac    []byte // the request's signature
	offset int64
	body   []byte
}

var (
	errMalformed = errors.New("malformed request")
	errUnsigned  = errors.New("not signed by a member")
	errSeen      = errors.New("sent before, or too old to tell")
)

// admit lets in a request. It looks at nothing else before it knows that the
// signature is right.
func (g *gate) admit(w http.ResponseWriter, r *http.Request) (*call, error) {
	path, raw, _ := strings.Cut(r.RequestURI, "?")
	if !r.ProtoAtLeast(1, 1) || !strings.HasPrefix(path, root) || len(r.Header.Values(headerAuth)) != 1 || len(r.Header.Values("Range")) > 1 || r.Header.Get("Expect") != "" {
		return nil, errMalformed
	}
	a, err := parseAuth(r.Header.Get(headerAuth))
	if err != nil {
		return nil, err
	}
	body, err := readBody(w, r, g.most(path))
	if err != nil {
		return nil, err
	}
	m, known := g.member(a.sender)
	st := statement{
		receiver: g.nonce, sender: a.sender, nonce: m.Nonce, number: a.number,
		method: r.Method, path: path, query: raw, span: r.Header.Get("Range"), body: body,
	}
	// Strangers' signatures are computed too, so that the time does not tell who is
	// a member.
	by, signed := st.signedBy(g.keys.all(), a.mac)
	if !signed || !known || len(m.Nonce) == 0 || len(g.nonce) == 0 {
		return nil, errUnsigned
	}
	m.ID = a.sender
	if !g.replays.take(m, a.number) {
		return nil, errSeen
	}
	c := &call{Request: r, path: strings.TrimPrefix(path, root), raw: raw, sender: a.sender, key: by, mac: a.mac, body: body}
	var ok bool
	if c.offset, ok = wire.ParseRangeFrom(r.Header.Get("Range")); !ok {
		return nil, errMalformed
	}
	return c, nil
}

// most is how many bytes the body of a request for path may have. It is read before the
// signature is checked, which covers it.
func (g *gate) most(path string) int64 {
	switch {
	case g.vault && path == root+certificates:
		return maxVault
	case path == root+directory:
		return maxTold
	default:
		return maxOffer
	}
}

// readBody reads the body of a POST, of at most so many bytes. No other request has one.
func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	switch {
	case r.Method != http.MethodPost && r.ContentLength == 0:
		return nil, nil
	case r.Method != http.MethodPost || r.ContentLength < 0 || r.ContentLength > most:
		return nil, errMalformed
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTime)) // a connection without deadlines ends with its other end
	var b bytes.Buffer                                    // grows with what comes: whoever sends it is not known yet
	if _, err := io.CopyN(&b, r.Body, r.ContentLength); err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	_ = control.SetReadDeadline(time.Time{}) // as above
	return b.Bytes(), nil
}
