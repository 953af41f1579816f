package peer

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A spy is a listener whose connections count what the kernel copies, and tell
// when they are closed.
type spy struct {
	net.Listener
	buffer int           // for sending; 0: the system's default
	files  atomic.Int64  // bytes that the kernel copied from a file
	closed chan struct{} // one for each connection
}

func newSpy(l net.Listener) *spy { return &spy{Listener: l, closed: make(chan struct{}, 100)} }

func (s *spy) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := c.(*net.TCPConn)
	if s.buffer > 0 {
		_ = conn.SetWriteBuffer(s.buffer)
	}
	return &spied{TCPConn: conn, spy: s}, nil
}

type spied struct {
	*net.TCPConn
	spy  *spy
	once sync.Once
}

// ReadFrom is what net/http calls. TCPConn does sendfile for an *os.File
// directly below one *io.LimitedReader, and for nothing else.
func (c *spied) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if ok {
		_, ok = limited.R.(*os.File)
	}
	k, err := c.TCPConn.ReadFrom(src)
	if ok {
		c.spy.files.Add(k)
	}
	return k, err
}

func (c *spied) Close() error {
	c.once.Do(func() { c.spy.closed <- struct{}{} })
	return c.TCPConn.Close()
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
		before := s.files.Load()
		if b, _, err := pull(t.Context(), r.b, ref, off, true); err != nil || !bytes.Equal(b, content[off:]) {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		if n := s.files.Load() - before; n != size-off {
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
	<-s.closed // although nobody reads
}
