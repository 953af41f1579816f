package peer

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
)

// A spy is a listener that sees sendfile, and tells when its connections are
// closed.
type spy struct {
	testkit.Spy
	buffer int           // for sending; 0: the system's default
	closed chan struct{} // one for each connection
}

func newSpy(l net.Listener) *spy {
	return &spy{Spy: testkit.Spy{Listener: l}, closed: make(chan struct{}, 100)}
}

func (s *spy) Accept() (net.Conn, error) {
	c, err := s.Spy.Accept()
	if err != nil {
		return nil, err
	}
	conn := c.(*testkit.SpiedConn)
	if s.buffer > 0 {
		_ = conn.SetWriteBuffer(s.buffer)
	}
	return &spied{SpiedConn: conn, spy: s}, nil
}

type spied struct {
	*testkit.SpiedConn
	spy  *spy
	once sync.Once
}

func (c *spied) Close() error {
	c.once.Do(func() { c.spy.closed <- struct{}{} })
	return c.SpiedConn.Close()
}

func TestBlobsLeaveBySendfile(t *testing.T) {
	t.Parallel()
	var s *spy
	r := newRig(t, setup{listener: func(l net.Listener) net.Listener {
		s = newSpy(l)
		return s
	}})
	const size = 3*mib + 7
	content := random(1, size)
	ref := r.ref(r.registry.PutBlob(repo, content))
	if _, _, err := pull(t.Context(), r.b, ref, 0, false); err != nil {
		t.Fatal(err)
	}
	settle(t, r, ref)
	for _, off := range []int64{0, 5} {
		before := s.Files()
		if b, _, err := pull(t.Context(), r.b, ref, off, true); err != nil || !bytes.Equal(b, content[off:]) {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		if n := s.Files() - before; n != size-off {
			t.Errorf("%d of %d bytes left by sendfile", n, size-off)
		}
	}
}

func TestDeadReaderIsCut(t *testing.T) {
	t.Parallel()
	var s *spy
	r := newRig(t, setup{listener: func(l net.Listener) net.Listener {
		s = newSpy(l)
		s.buffer = 16 * kib
		return s
	}})
	ref := r.ref(r.registry.PutBlob(repo, random(1, 8*mib)))
	settle(t, r, ref)
	r.server.pieceTime = 50 * time.Millisecond
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetReadBuffer(16 * kib)
	q := good(1 << 30)
	q.path, q.query = root+"blobs/"+ref.Digest.String(), query{Ref: ref}.encode()
	if _, err := io.WriteString(c, q.signed().text()); err != nil {
		t.Fatal(err)
	}
	<-s.closed // although the client does not read
}
