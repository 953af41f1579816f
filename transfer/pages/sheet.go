package pages

import (
	"fmt"
	"io"
	"sync"
)

// A Sheet is a page that can be read, by any number at a time. Close it once nobody
// reads it.
type Sheet struct {
	Word
	body io.ReaderAt
	end  func()
}

// newSheet returns a Sheet. end lets its bytes go.
func newSheet(w Word, body io.ReaderAt, end func()) *Sheet {
	return &Sheet{Word: w, body: body, end: sync.OnceFunc(end)}
}

// Describe returns how many bytes the page has, and their SHA-256 in hexadecimal.
func (s *Sheet) Describe() (size int64, sum string) { return s.Size, s.Sum }

// Reader returns a reader of the whole page.
func (s *Sheet) Reader() io.Reader { return io.NewSectionReader(s.body, 0, s.Size) }

// Send writes the whole page to w.
func (s *Sheet) Send(w io.Writer) error {
	if _, err := io.Copy(w, s.Reader()); err != nil {
		return fmt.Errorf("sending a list: %w", err)
	}
	return nil
}

// Close lets the page's bytes go.
func (s *Sheet) Close() error {
	s.end()
	return nil
}

// A sheaf is a page in memory. It grows by pieces, so that no byte is copied.
type sheaf struct {
	pieces [][]byte
	size   int64
}

// pieceSize is how large the pieces are, in bytes. The first may be smaller.
const pieceSize = 256 << 10

// Write implements io.Writer.
func (s *sheaf) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		last := len(s.pieces) - 1
		if last < 0 || len(s.pieces[last]) == pieceSize {
			s.pieces = append(s.pieces, make([]byte, 0, min(pieceSize, max(len(p), 4<<10))))
			last++
		}
		k := min(len(p), pieceSize-len(s.pieces[last]))
		s.pieces[last] = append(s.pieces[last], p[:k]...)
		p = p[k:]
	}
	s.size += int64(n)
	return n, nil
}

// ReadAt implements io.ReaderAt.
func (s *sheaf) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < s.size {
		k := copy(p[n:], s.pieces[off/pieceSize][off%pieceSize:])
		n += k
		off += int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
