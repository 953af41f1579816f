package peer

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// A told is what the header of a relayed answer says of the registry's answer.
type told struct {
	Digest   string `json:"digest,omitempty"`
	Size     int64  `json:"size"`             // of the whole, -1 if the registry does not tell
	Offset   int64  `json:"offset,omitempty"` // where the body begins
	Host     string `json:"host,omitempty"`   // that sends the bytes
	By       string `json:"by,omitempty"`
	Coding   string `json:"coding,omitempty"`
	Redirect string `json:"redirect,omitempty"`
	Type     string `json:"type,omitempty"` // of a manifest of which a HEAD told
}

// set writes the header. What can't be passed on is the registry's failure.
func (t told) set(h http.Header, registry string) error {
	if t.Redirect != "" && !isLocation(t.Redirect) {
		return malformed(registry, "redirect")
	}
	if err := tellable(registry, t.Type); err != nil {
		return err
	}
	t.Host, t.Coding = printable(t.Host, maxWord), printable(t.Coding, maxReason)
	b, err := json.Marshal(t)
	if err != nil {
		return malformed(registry, "answer")
	}
	h.Set(headerTold, string(b))
	return nil
}

var errTold = errors.New("what it says of the registry's answer is malformed")

// readTold reads what set wrote.
func readTold(h http.Header) (t told, err error) {
	if err := json.Unmarshal([]byte(h.Get(headerTold)), &t); err != nil {
		return t, errTold
	}
	if t.Digest != "" {
		if _, err := parseDigest(t.Digest); err != nil {
			return t, errTold
		}
	}
	if t.Size < -1 || t.Offset < 0 || t.Size >= 0 && t.Offset > t.Size || t.Redirect != "" && !isLocation(t.Redirect) || !visible(t.Type, maxWord) {
		return t, errTold
	}
	t.Host, t.Coding = printable(t.Host, maxWord), printable(t.Coding, maxReason)
	return t, nil
}

// by is who gave the registry's answer.
func (t told) by() oci.Party { return partyOf(failure{By: t.By}) }

// digest is what the registry says the digest is, "" if it does not.
func (t told) digest() digest.Digest { return digest.Digest(t.Digest) }
