package membership

import (
	"io"
	"net/netip"
	"slices"
	"sync"
)

// These bound the streams from addresses that no live member has.
const (
	maxStrangers = 64 // streams at a time
	maxFromOne   = 16 // of them from one address
)

// strangers are the streams at a time from addresses that no live member has. Any of
// them may be a new member's, which is done within a moment. So a new stream always
// gets in, and in its place the oldest one ends: of the same address if that has its
// share, else of the address that has the most.
type strangers struct {
	mu  sync.Mutex // guards the field below; never held during I/O
	all []stranger // the oldest first
}

// A stranger is one stream.
type stranger struct {
	stream io.Closer
	from   netip.Prefix
}

// enter notes a stream, and ends another if need be. The stream leaves by calling
// what enter returns, once or more.
func (s *strangers) enter(stream io.Closer, from netip.Addr) (leave func()) {
	if old := s.add(stranger{stream, origin(from)}); old != nil {
		_ = old.Close() // its owner sees that it is closed
	}
	return func() { s.remove(stream) }
}

// origin returns the prefix that one host can choose its addresses from: the address
// itself, or the /64 of an IPv6 address.
func origin(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // of no address
	}
	return p
}

// add adds the stream. It returns the one that has to end for it, or nil.
func (s *strangers) add(one stranger) (old io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := map[netip.Prefix]int{}
	most := one.from
	for _, o := range s.all {
		if count[o.from]++; count[o.from] > count[most] {
			most = o.from
		}
	}
	switch {
	case count[one.from] >= maxFromOne:
		most = one.from
	case len(s.all) < maxStrangers:
		s.all = append(s.all, one)
		return nil
	}
	i := slices.IndexFunc(s.all, func(o stranger) bool { return o.from == most })
	old = s.all[i].stream
	s.all = append(slices.Delete(s.all, i, i+1), one)
	return old
}

func (s *strangers) remove(stream io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(o stranger) bool { return o.stream == stream })
}
