package peer

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// keys are what requests are signed with, derived from the cluster's secrets.
// They may be exchanged at any time.
type keys struct{ p atomic.Pointer[[][]byte] }

// set takes the secrets: the first signs, all of them are accepted. Empty ones
// are left out: they would be known to everybody.
func (k *keys) set(secrets [][]byte) {
	var out [][]byte
	for _, s := range secrets {
		if len(s) > 0 {
			// Gossip is encrypted with the same secret: each use has its own key.
			out = append(out, sum(s, []byte("oci-proxy peer request v"+version)))
		}
	}
	k.p.Store(&out)
}

// all returns the keys, the signing one first.
func (k *keys) all() [][]byte {
	if p := k.p.Load(); p != nil {
		return *p
	}
	return nil
}

// sum is HMAC-SHA256 over the fields. Each follows its length, so that no two
// lists of fields read the same.
func sum(key []byte, fields ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, f := range fields {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(f)))
		h.Write(n[:])
		h.Write(f)
	}
	return h.Sum(nil)
}

// A statement is all that a signature covers. The nonces bind it to one boot of
// either end, the number to one request, so no clocks are needed.
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

// sign returns the signature by key.
func (s *statement) sign(key []byte) []byte {
	body := sha256.Sum256(s.body)
	return sum(
		key, []byte(version), s.receiver, []byte(s.sender), s.nonce, binary.BigEndian.AppendUint64(nil, s.number),
		[]byte(s.method), []byte(s.path), []byte(s.query), []byte(s.span), body[:],
	)
}

// signedBy reports whether mac is by one of the keys.
func (s *statement) signedBy(all [][]byte, mac []byte) bool {
	ok := false
	for _, k := range all {
		ok = hmac.Equal(s.sign(k), mac) || ok
	}
	return ok
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

var errAuth = errors.New("not of the form of a signature")

// parseAuth reads the header's value. There is one way only to write an auth.
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

// isID reports whether s is of the form of a member's id.
func isID(s string) bool {
	return s != "" && len(s) <= maxID && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

const (
	// width is how far behind the newest of a sender's requests another may
	// come in: as many as can overtake one that waits for its connection.
	width = 1 << 14
	// maxSenders bounds how many senders' numbers are kept (2 KiB each).
	maxSenders = 4096
)

// A window knows which of the latest numbers of one boot of a sender were seen.
type window struct {
	nonce []byte
	top   uint64
	seen  [width / 64]uint64
}

// take reports whether n is new, and notes it. What is too old to be known
// counts as seen.
func (w *window) take(n uint64) bool {
	if n > w.top {
		if n-w.top >= width {
			clear(w.seen[:])
			w.top = n
		}
		for w.top != n {
			w.top++
			w.seen[w.top%width/64] &^= 1 << (w.top % 64)
		}
	}
	if w.top-n >= width {
		return false
	}
	word, bit := &w.seen[n%width/64], uint64(1)<<(n%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// replays keeps the windows of all senders.
type replays struct {
	mu      sync.Mutex
	windows map[string]*window // by sender's id
	member  func(string) (Member, bool)
}

// take reports whether the number is new for that boot of the sender. It is
// asked only about requests whose signature is right. A sender's window is kept
// though it leaves, for as long as there is room: what it sent could be sent
// again when it is back.
func (r *replays) take(m Member, number uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.windows[m.ID]
	if w == nil || !bytes.Equal(w.nonce, m.Nonce) {
		if w == nil && !r.room() {
			return false
		}
		w = &window{nonce: bytes.Clone(m.Nonce)}
		r.windows[m.ID] = w
	}
	return w.take(number)
}

// room makes room for one more sender, at the expense of those that are gone.
func (r *replays) room() bool {
	if len(r.windows) < maxSenders {
		return true
	}
	for id, w := range r.windows {
		if m, ok := r.member(id); !ok || !bytes.Equal(m.Nonce, w.nonce) {
			delete(r.windows, id)
		}
	}
	return len(r.windows) < maxSenders
}
