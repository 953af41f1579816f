package peer

import (
	"net"
	"strconv"
	"testing"
	"time"

	"oci-proxy/transfer/oci"
)

// A node of a large cluster tells all members a word now and then. It keeps no connections for that
// but those to the members that it asked last.
func TestIdleConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	const all, most = 12, 3
	ends := make(chan net.Conn, 2*all)
	r := newRig(t, setup{directory: func(string, []byte) (bool, error) { return false, nil }, listener: func(l net.Listener) net.Listener { return &counting{l, ends} }})
	c := newClient(t, r.members)
	c.links.idle = newIdle(most)
	for i := range all {
		id := "m" + strconv.Itoa(i)
		r.members.put(Member{ID: id, Name: id, Addr: r.addr, Nonce: nonceB, Boot: 7})
	}
	ask := func(i int) {
		if _, err := c.Peer("m"+strconv.Itoa(i)).Progress(t.Context(), oci.Ref{}); err != nil {
			t.Fatal(err)
		}
	}
	tell := func(i int) {
		if _, _, err := TellDirectory(t.Context(), c, "m"+strconv.Itoa(i), nil, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	for i := range all {
		ask(i)
	}
	for range all - most { // these come to their end: the test hangs if they don't
		<-ends
	}
	for i := range all - most { // a word to those makes no other link rest
		tell(i)
		<-ends
		if _, err := c.Stats(t.Context(), "m"+strconv.Itoa(i)); err != nil { // nor does a question to all
			t.Fatal(err)
		}
		<-ends
	}
	for i := range most {
		ask(all - 1 - i)
		tell(all - 1 - i)
	}
	if len(ends) > 0 || c.links.idle.links.Len() != most {
		t.Errorf("%d connections too many ended, to %d of %d members some are kept", len(ends), c.links.idle.links.Len(), most)
	}
	r.members.drop("m11")
	if _, err := c.links.to("m11"); err == nil || c.links.idle.links.Len() != most-1 {
		t.Errorf("%v: %d links count, of which one was given up", err, c.links.idle.links.Len())
	}
}

// A counting listener tells of connections that end.
type counting struct {
	net.Listener
	ends chan net.Conn
}

// Accept implements net.Listener.
func (l *counting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &counted{conn, l.ends}, nil
}

// A counted connection tells when the server closes it, as it does when the client has.
type counted struct {
	net.Conn
	ends chan net.Conn
}

// Close implements net.Conn.
func (c *counted) Close() error {
	select {
	case c.ends <- c:
	default:
	}
	return c.Conn.Close()
}
