package certs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// Limits of what lies on the shelf. Members send it, and are trusted with the cluster's secret,
// not with this node's memory.
const (
	maxName    = 400            // bytes of a key, or of a lock's name
	maxValue   = 40 << 10       // bytes of a value: a chain of certificates has some 4 KiB
	maxRecords = 1024           // records, those of what was deleted included
	maxBytes   = 8 << 20        // bytes of all values
	maxVersion = 1 << 50        // beyond any number of writes
	maxLeap    = 1 << 32        // how far a version may lie beyond all that a node has seen
	maxSender  = 128            // bytes of a member's id
	maxPage    = 512 << 10      // bytes of the values in one answer, before base64
	maxHeld    = 2 * maxRecords // locks that one node tells of
)

// A record is what the shelf holds of a key. Of two records of one key the newer counts.
type record struct {
	Key     string `json:"key"`
	Version uint64 `json:"version"` // grows with each write of any key
	By      string `json:"by"`      // id of the member that numbered it; "" for a node on its own
	Gone    bool   `json:"gone,omitempty"`
	Value   []byte `json:"value,omitempty"` // may be a private key
}

// newer reports whether r counts, and not o.
func (r *record) newer(o *record) bool {
	return r.Version > o.Version || r.Version == o.Version && r.By > o.By
}

// keyRule matches keys as certmagic makes them (KeyBuilder.Safe), parts between slashes.
var keyRule = regexp.MustCompile(`^[A-Za-z0-9_@.-]+(/[A-Za-z0-9_@.-]+)*$`)

// validKey reports whether a key may lie on the shelf.
func validKey(key string) bool {
	return len(key) <= maxName && keyRule.MatchString(key) && path.Clean(key) == key && !strings.HasPrefix(key, "..")
}

// validLock reports whether a lock may have that name.
func validLock(name string) bool {
	return name != "" && len(name) <= maxName && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

var errRecord = errors.New("a record is malformed or too large")

// check returns an error unless the record may lie on the shelf.
func (r *record) check() error {
	if !validKey(r.Key) || r.Version == 0 || r.Version > maxVersion || len(r.By) > maxSender || len(r.Value) > maxValue || r.Gone && len(r.Value) > 0 {
		return errRecord
	}
	return nil
}

// missing is the error of a key that the shelf has no value of.
func missing(key string) error { return fmt.Errorf("%s: %w", key, fs.ErrNotExist) }
