package directory

import (
	"encoding/binary"
	"errors"
)

const (
	// MaxMessage bounds a message, in bytes.
	MaxMessage = headSize + 8*MaxKeys
	// MaxKeys is how many blobs a message tells of at most.
	MaxKeys = 2000

	headSize = 1 + 1 + 8 + 8 + 4 + 2
	format   = 1
)

// The flags of a message.
const (
	first = 1 << iota
	last
)

// A Message tells what its sender holds of the blobs that are the receiver's on the ring.
// The messages of a session have numbers, from 0 on. They begin with all that the sender
// holds, and go on with what it gets and loses.
type Message struct {
	Session uint64 // not 0; another one for each time that all is told
	Number  uint32
	Ring    uint64 // hash of the ring by which the blobs are the receiver's
	First   bool   // of all that the sender holds
	Last    bool   // of that
	Held    []Key  // with those that are gone at most MaxKeys
	Gone    []Key
}

// Encode returns the message as it travels.
func (m *Message) Encode() []byte {
	flags := byte(0)
	if m.First {
		flags |= first
	}
	if m.Last {
		flags |= last
	}
	b := append(make([]byte, 0, headSize+8*(len(m.Held)+len(m.Gone))), format, flags)
	b = binary.BigEndian.AppendUint64(b, m.Session)
	b = binary.BigEndian.AppendUint64(b, m.Ring)
	b = binary.BigEndian.AppendUint32(b, m.Number)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Held)))
	for _, keys := range [][]Key{m.Held, m.Gone} {
		for _, k := range keys {
			b = binary.BigEndian.AppendUint64(b, uint64(k))
		}
	}
	return b
}

var errMessage = errors.New("what a member tells of its blobs is malformed")

// Parse reads a message.
func Parse(b []byte) (*Message, error) {
	if len(b) < headSize || len(b) > MaxMessage || (len(b)-headSize)%8 != 0 || b[0] != format {
		return nil, errMessage
	}
	m := &Message{
		First: b[1]&first != 0, Last: b[1]&last != 0,
		Session: binary.BigEndian.Uint64(b[2:]), Ring: binary.BigEndian.Uint64(b[10:]), Number: binary.BigEndian.Uint32(b[18:]),
	}
	held, rest := int(binary.BigEndian.Uint16(b[22:])), b[headSize:]
	if m.Session == 0 || held > len(rest)/8 {
		return nil, errMessage
	}
	for ; len(rest) > 0; rest = rest[8:] {
		k := Key(binary.BigEndian.Uint64(rest))
		if len(m.Held) < held {
			m.Held = append(m.Held, k)
		} else {
			m.Gone = append(m.Gone, k)
		}
	}
	return m, nil
}
