package pages

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
)

// A file of the shelf holds a page's bytes, then one line of JSON about it, then a foot:
// a mark, and the length and the sum of that line.
const (
	mark     = "ocipage1"
	footSize = int64(len(mark)) + 8
	maxLine  = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A line is what a file says about its bytes.
type line struct {
	Question  string `json:"question"`
	Told      int64  `json:"told"` // unix milliseconds
	Size      int64  `json:"size"`
	Sum       string `json:"sum,omitempty"`
	MediaType string `json:"media_type,omitempty"`
	Next      string `json:"next,omitempty"`
	Filters   string `json:"filters,omitempty"`
	No        *no    `json:"no,omitempty"`
}

// A no is an answer that is no page.
type no struct {
	Registry string `json:"registry"`
	Refused  bool   `json:"refused,omitempty"`
	Host     string `json:"host,omitempty"`
	Status   int    `json:"status,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// encode returns what follows a page's bytes in its file.
func encode(question string, w Word) []byte {
	l := line{Question: question, Told: w.Told.UnixMilli(), Size: w.Size, Sum: w.Sum}
	if w.Page != nil {
		l.MediaType, l.Next, l.Filters = w.Page.MediaType, string(w.Page.Next), w.Page.Filters
	}
	if w.No != nil {
		l.No = &no{w.No.Registry, w.No.Kind == oci.Denied, w.No.Host, w.No.Status, w.No.Reason}
	}
	b, err := json.Marshal(l)
	if err != nil { // never, for strings and numbers
		b = nil
	}
	foot := binary.BigEndian.AppendUint32([]byte(mark), uint32(len(b)))
	foot = binary.BigEndian.AppendUint32(foot, crc32.Checksum(b, castagnoli))
	return append(b, foot...)
}

// errFile: a file is damaged, or another's.
var errFile = errors.New("the file is damaged, or not of this program")

// decode reads a file's line.
func decode(f io.ReaderAt, size int64, question string) (Word, error) {
	var foot [footSize]byte
	if size < footSize {
		return Word{}, errFile
	}
	if _, err := f.ReadAt(foot[:], size-footSize); err != nil && !errors.Is(err, io.EOF) {
		return Word{}, fmt.Errorf("reading: %w", err)
	}
	n := int64(binary.BigEndian.Uint32(foot[len(mark):]))
	if !bytes.HasPrefix(foot[:], []byte(mark)) || n > maxLine || n > size-footSize {
		return Word{}, errFile
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, size-footSize-n); err != nil {
		return Word{}, fmt.Errorf("reading: %w", err)
	}
	var l line
	if crc32.Checksum(b, castagnoli) != binary.BigEndian.Uint32(foot[len(mark)+4:]) || json.Unmarshal(b, &l) != nil || l.Question != question || l.Size != size-footSize-n {
		return Word{}, errFile
	}
	return l.word(), nil
}

// word returns what a line says.
func (l *line) word() Word {
	w := Word{Told: time.UnixMilli(l.Told), Size: l.Size, Sum: l.Sum}
	if l.No != nil {
		w.No = &oci.Error{Kind: oci.NotFound, Registry: l.No.Registry, Host: l.No.Host, By: oci.Registry, Status: l.No.Status, Reason: l.No.Reason}
		if l.No.Refused {
			w.No.Kind = oci.Denied
		}
		return w
	}
	w.Page = &oci.Page{MediaType: l.MediaType, Next: oci.ListQuery(l.Next), Filters: l.Filters, By: oci.Registry}
	return w
}

// open opens a file and reads its line. end closes it; body is valid until then.
func open(folder *cache.Folder, name, question string) (w Word, body io.ReaderAt, end func(), err error) {
	f, err := folder.Open(name)
	if err != nil {
		return Word{}, nil, nil, err
	}
	end = func() { _ = f.Close() } // only read
	if w, err = decode(f, f.Size(), question); err != nil {
		end()
		return Word{}, nil, nil, err
	}
	return w, f, end, nil
}

// check reads a page and compares its sum.
func check(body io.ReaderAt, w Word) error {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(body, 0, w.Size)); err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	if hex.EncodeToString(h.Sum(nil)) != w.Sum {
		return errFile
	}
	return nil
}
