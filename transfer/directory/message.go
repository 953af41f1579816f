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
	covering
	again
)

// maxPartitions bounds the partitions of a ring.
const maxPartitions = 1 << 14

// A Message tells what its sender holds of the blobs that are the receiver's on the ring.
// The messages of a session have numbers, from 0 on. They begin with all that the sender
// holds, and go on with what it gets and loses, and what it holds of partitions that have
// become the receiver's.
type Message struct {
	Session uint64 // not 0; another one for each time that all is told, a higher one while the sender runs
	Number  uint32
	Ring    uint64 // hash of the ring when the session began: the only one in which earlier versions count on it
	First   bool   // of all that the sender holds
	Last    bool   // of that
	Again   bool   // the receiver is to tell the sender all; earlier versions do not hear that
	Held    []Key  // with those that are gone, and the words of partitions, at most MaxKeys
	Gone    []Key
	// Covers lists partitions of which the sender has told in this session all that it holds, by
	// now, and of which it goes on to tell, whatever becomes of the ring. A member of an
	// earlier version takes their words for blobs that are gone, which is nothing to it.
	Covers []uint16
}

// words returns the words that so many partitions take: four to a word, and how many they are.
func words(partitions int) int {
	if partitions == 0 {
		return 0
	}
	return (partitions+3)/4 + 1
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
	if len(m.Covers) > 0 {
		flags |= covering
	}
	if m.Again {
		flags |= again
	}
	b := append(make([]byte, 0, headSize+8*(len(m.Held)+len(m.Gone)+words(len(m.Covers)))), format, flags)
	b = binary.BigEndian.AppendUint64(b, m.Session)
	b = binary.BigEndian.AppendUint64(b, m.Ring)
	b = binary.BigEndian.AppendUint32(b, m.Number)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Held)))
	for _, keys := range [][]Key{m.Held, m.Gone} {
		for _, k := range keys {
			b = binary.BigEndian.AppendUint64(b, uint64(k))
		}
	}
	if n := len(m.Covers); n > 0 {
		for _, p := range m.Covers {
			b = binary.BigEndian.AppendUint16(b, p)
		}
		b = append(b, make([]byte, 2*(-n&3))...)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
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
		First: b[1]&first != 0, Last: b[1]&last != 0, Again: b[1]&again != 0,
		Session: binary.BigEndian.Uint64(b[2:]), Ring: binary.BigEndian.Uint64(b[10:]), Number: binary.BigEndian.Uint32(b[18:]),
	}
	held, rest := int(binary.BigEndian.Uint16(b[22:])), b[headSize:]
	if m.Session == 0 {
		return nil, errMessage
	}
	if b[1]&covering != 0 {
		var ok bool
		if m.Covers, rest, ok = readCovers(rest); !ok {
			return nil, errMessage
		}
	}
	if held > len(rest)/8 {
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

// readCovers reads the partitions at the end of b, and returns what is before them.
func readCovers(b []byte) (all []uint16, before []byte, ok bool) {
	end := len(b) - 8
	if end < 0 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint64(b[end:])
	if n == 0 || n > maxPartitions || 8*words(int(n)) > len(b) {
		return nil, nil, false
	}
	before = b[:len(b)-8*words(int(n))]
	for at := len(before); len(all) < int(n); at += 2 {
		p := binary.BigEndian.Uint16(b[at:])
		if p >= maxPartitions {
			return nil, nil, false
		}
		all = append(all, p)
	}
	return all, before, true
}
