package membership

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"

	"oci-proxy/ring"
)

// Limits of a meta: what a member tells of itself.
const (
	maxMeta       = 480 // bytes that this node sends; memberlist panics beyond 512
	maxHeard      = 512 // bytes that it accepts
	maxText       = 64  // bytes of a name, a zone or a version
	maxPeer       = 128 // bytes of a peer address
	maxRegistries = 40
	nonceSize     = 16
	idSize        = 16 // bytes, written as twice as many hexadecimal digits
)

// The flags of a registry.
const (
	configured = 1 << iota
	login
	private
)

// The flags of a meta.
const (
	egress = 1 << iota
	whitelist
	anyRegistry // the member is configured for more registries than fit
	anyPrivate  // and some of those that don't fit are private
	void        // this start takes another id, since it met another node with this one
	relays      // the member knows how nodes ask registries for each other
	certs       // the member keeps certificates for the clients' port
	hears       // the member keeps what others tell of their blobs
)

// states are the letters that stand for the states in a meta.
var states = map[State]string{Active: "a", Restarting: "r", Draining: "d"}

// A wire is a member's meta as it travels: compact, and new keys may be added.
type wire struct {
	ID          string `json:"i"`
	Epoch       uint64 `json:"e"`
	Name        string `json:"m,omitempty"`
	Peer        string `json:"p"`
	Zone        string `json:"z,omitempty"`
	Weight      int    `json:"w"`
	Size        int    `json:"b,omitempty"` // not known to versions before this one
	State       string `json:"s"`
	Nonce       string `json:"n"`
	Fingerprint string `json:"f,omitempty"`
	Version     string `json:"v,omitempty"`
	Flags       int    `json:"x,omitempty"`
	Registries  string `json:"r,omitempty"`
	Keys        string `json:"k,omitempty"`
	Ring        string `json:"t"`
}

// ringTag is equal for builds of the program whose rings place keys alike.
var ringTag = sync.OnceValues(func() (string, error) {
	r, err := ring.New([]ring.Member{{ID: "tag", Weight: 1}})
	if err != nil {
		return "", fmt.Errorf("making the ring's tag: %w", err)
	}
	return fmt.Sprintf("%08x", uint32(r.Hash())), nil
})

// base64s has no padding, so it is shorter than encoding/json's own.
var base64s = base64.RawStdEncoding

// encode encodes the member's meta. It leaves out registries that don't fit, those
// without a login or private content first; the member then counts as configured
// for any.
func encode(m *Member) ([]byte, error) {
	tag, err := ringTag()
	if err != nil {
		return nil, err
	}
	w := wire{
		ID: m.ID, Epoch: m.Epoch, Name: m.Name, Peer: m.Peer, Zone: m.Zone, Weight: m.Weight, Size: m.Size,
		State: states[m.State], Nonce: base64s.EncodeToString(m.Nonce), Version: m.Version,
		Flags: m.flags(), Registries: base64s.EncodeToString(m.registries), Ring: tag,
		Keys: base64s.EncodeToString(m.keys),
	}
	if m.Fingerprint != [32]byte{} {
		w.Fingerprint = base64s.EncodeToString(m.Fingerprint[:])
	}
	b, err := json.Marshal(w)
	for rest := m.registries; err == nil && len(b) > maxMeta && len(rest) > 0; {
		next, flags := shorter(rest)
		rest, w.Flags = next, w.Flags|flags
		w.Registries = base64s.EncodeToString(rest)
		b, err = json.Marshal(w)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding the member: %w", err)
	}
	if len(b) > maxMeta {
		return nil, fmt.Errorf("the description of this node takes %d bytes, more than %d: shorten its name, zone or address", len(b), maxMeta)
	}
	return b, nil
}

func (m *Member) flags() int {
	flags := 0
	for flag, on := range map[int]bool{egress: m.Egress, whitelist: m.Whitelist, anyRegistry: m.any, anyPrivate: m.anySecret, void: m.void, relays: m.Relays, certs: m.Certificates, hears: m.Hears} {
		if on {
			flags |= flag
		}
	}
	return flags
}

var errMeta = errors.New("not a member of this mesh")

// decode reads a member's meta. An error wraps errMeta.
func decode(b []byte) (*Member, error) {
	if len(b) > maxHeard {
		return nil, fmt.Errorf("%w: its meta has %d bytes", errMeta, len(b))
	}
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("%w: its meta can't be read: %w", errMeta, err)
	}
	if err := w.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errMeta, err)
	}
	m := &Member{
		ID: w.ID, Epoch: w.Epoch, Name: w.Name, Peer: w.Peer, Zone: w.Zone, Version: w.Version, Weight: w.Weight, Size: w.Size,
		Egress: w.Flags&egress != 0, Whitelist: w.Flags&whitelist != 0, any: w.Flags&anyRegistry != 0, anySecret: w.Flags&anyPrivate != 0,
		void: w.Flags&void != 0, Relays: w.Flags&relays != 0, Certificates: w.Flags&certs != 0, Hears: w.Flags&hears != 0,
	}
	for s, letter := range states {
		if letter == w.State {
			m.State = s
		}
	}
	return m, w.bytes(m)
}

// bytes decodes what travels in base64.
func (w *wire) bytes(m *Member) (err error) {
	if m.Nonce, err = base64s.DecodeString(w.Nonce); err != nil || len(m.Nonce) != nonceSize {
		return fmt.Errorf("%w: its nonce is malformed", errMeta)
	}
	sum, err := base64s.DecodeString(w.Fingerprint)
	if err != nil || len(sum) != 0 && len(sum) != len(m.Fingerprint) {
		return fmt.Errorf("%w: its fingerprint is malformed", errMeta)
	}
	copy(m.Fingerprint[:], sum)
	if m.keys, err = base64s.DecodeString(w.Keys); err != nil || len(m.keys)%sketchSize != 0 {
		return fmt.Errorf("%w: the sketch of its secrets is malformed", errMeta)
	}
	if m.registries, err = base64s.DecodeString(w.Registries); err != nil || len(m.registries)%entrySize != 0 {
		return fmt.Errorf("%w: its registries are malformed", errMeta)
	}
	return nil
}

func (w *wire) check() error {
	tag, err := ringTag()
	if err != nil {
		return err
	}
	if w.Ring != tag {
		return fmt.Errorf("its ring places keys differently (%.16q, here %q): it is another version of oci-proxy", w.Ring, tag)
	}
	if !validID(w.ID) || w.Epoch == 0 {
		return errors.New("its id or epoch is malformed")
	}
	if w.Weight < 1 || w.Weight > ring.MaxWeight {
		return fmt.Errorf("its weight is %d; it must be 1 to %d", w.Weight, ring.MaxWeight)
	}
	if w.Size < 0 || w.Size > ring.MaxSize {
		return fmt.Errorf("its size is %d; it must be 0 to %d", w.Size, ring.MaxSize)
	}
	if !slices.Contains([]string{"a", "r", "d"}, w.State) {
		return errors.New("its state is unknown")
	}
	for _, text := range []string{w.Name, w.Zone, w.Version} {
		if !plain(text) {
			return fmt.Errorf("a name, zone or version is longer than %d bytes or not printable", maxText)
		}
	}
	if !reachable(w.Peer) {
		return errors.New("its peer address is not host:port")
	}
	return nil
}

// validID reports whether this package could have made the id.
func validID(id string) bool {
	b, err := hex.DecodeString(id)
	return err == nil && len(b) == idSize && hex.EncodeToString(b) == id
}

// plain reports whether the text may be shown to people, in logs and on the page.
func plain(text string) bool {
	if len(text) > maxText || !utf8.ValidString(text) {
		return false
	}
	for _, c := range text {
		if !unicode.IsPrint(c) {
			return false
		}
	}
	return true
}

func reachable(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || len(address) > maxPeer {
		return false
	}
	for _, c := range []byte(host) {
		if c <= ' ' || c >= 0x7f || c == '/' || c == '@' {
			return false
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// entrySize is the size of a registry's entry: three bytes of its hash, and its
// flags.
const entrySize = 4

// sensitive are the flags that the other members must know of a registry.
const sensitive = login | private

// shorter leaves registries out: first those that are not sensitive, then all. It
// returns the meta's flags that stand for them.
func shorter(entries []byte) (left []byte, flags int) {
	for e := range slices.Chunk(entries, entrySize) {
		if e[3]&sensitive != 0 {
			left = append(left, e...)
		}
	}
	if len(left) < len(entries) && len(left) <= maxRegistries*entrySize {
		return left, anyRegistry
	}
	return nil, anyRegistry | anyPrivate
}

// pack returns the sorted entries of the registries, and the meta's flags for those
// that don't fit.
func pack(registries []Registry) (entries []byte, left int) {
	flags := map[[3]byte]byte{}
	for _, r := range registries {
		f := byte(configured)
		if r.Login {
			f |= login
		}
		if r.Private {
			f |= private
		}
		flags[prefix(r.Host)] |= f
	}
	for p, f := range flags {
		entries = append(append(entries, p[:]...), f)
	}
	sorted := slices.SortedFunc(slices.Chunk(entries, entrySize), slices.Compare)
	entries = slices.Concat(sorted...)
	if len(flags) > maxRegistries {
		return shorter(entries)
	}
	return entries, 0
}

// prefix returns the bytes that stand for a registry. Two registries have the same
// ones in one of 10,000 meshes of 40 registries. Then a node is asked in vain, and
// one in whitelist_mode refuses.
func prefix(registry string) (p [3]byte) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], xxhash.Sum64String(registry))
	copy(p[:], b[:])
	return p
}
