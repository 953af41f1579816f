package grants

import (
	"bytes"
	"testing"
)

// FuzzDecodeFile checks that no file of notes makes the reader fail, and that a file is
// read as it was written.
func FuzzDecodeFile(f *testing.F) {
	l := newLedger()
	l.vouches(0, blob("team/app", "x"))
	l.refuse(blob("team/app", "x"))
	f.Add(encodeFile(private, l.records(private)))
	f.Add([]byte(heading + "\n" + string(make([]byte, recordSize+1))))
	f.Add([]byte("oci-proxy grants 2 x\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		registry, records, ok := decodeFile(content)
		if !ok {
			return
		}
		fresh := newLedger()
		fresh.read(registry, records)
		undamaged := 0
		for _, r := range records {
			if r.kind != damaged {
				undamaged++
			}
		}
		again := encodeFile(registry, records)
		if undamaged == len(records) && !bytes.Equal(again, content) {
			t.Errorf("%q is written again as %q", content, again)
		}
		if undamaged < len(records) && registry != strangers && !fresh.marked(registry) {
			t.Errorf("damaged notes do not mark %q as private", registry)
		}
	})
}
