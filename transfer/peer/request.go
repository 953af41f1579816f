package peer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A statement is all that a request's signature covers. The nonces bind it to one
// boot of either end and the number to one request, so no clocks are needed.
type statement struct {
	receiver []byte // its boot nonce
	sender   string // its id
	nonce    []byte // the sender's boot nonce
	number   uint64
	method   string
	path     string
	query    string // as it stands in the request line
	span     string // the Range header
	body     []byte
}

// sign returns the signature by k.
func (s *statement) sign(k key) []byte {
	body := sha256.Sum256(s.body)
	m := with(make(message, 0, 512), version)
	m = with(m, s.receiver, []byte(s.sender), s.nonce, binary.BigEndian.AppendUint64(nil, s.number))
	m = with(m, s.method, s.path, s.query, s.span, string(body[:]))
	return sum(k.request, m)
}

// signedBy returns which of the keys mac is by.
func (s *statement) signedBy(all []key, mac []byte) (by key, ok bool) {
	for _, k := range all {
		if hmac.Equal(s.sign(k), mac) {
			by, ok = k, true
		}
	}
	return by, ok
}

// An auth is what the header of a signed request says.
type auth struct {
	sender string
	number uint64
	mac    []byte
}

// String returns the header's value.
func (a auth) String() string {
	return fmt.Sprintf("v%s %s %d %x", version, a.sender, a.number, a.mac)
}

var errAuth = errors.New("malformed signature")

// parseAuth reads the header's value. There is only one way to write an auth.
func parseAuth(s string) (auth, error) {
	const most = 3 + maxID + 1 + 20 + 1 + 2*sha256.Size
	parts := strings.Split(s, " ")
	if len(s) > most || len(parts) != 4 || parts[0] != "v"+version || !isID(parts[1]) {
		return auth{}, errAuth
	}
	number, err := strconv.ParseUint(parts[2], 10, 64)
	if err != nil || number == 0 {
		return auth{}, errAuth
	}
	mac, err := hex.DecodeString(parts[3])
	if err != nil || len(mac) != sha256.Size {
		return auth{}, errAuth
	}
	a := auth{sender: parts[1], number: number, mac: mac}
	if a.String() != s {
		return auth{}, errAuth
	}
	return a, nil
}

// maxID bounds a member's id.
const maxID = 128

// isID reports whether s has the form of a member's id.
func isID(s string) bool {
	return s != "" && len(s) <= maxID && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}
