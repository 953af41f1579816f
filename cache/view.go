package cache

import "errors"

// A verdict says whether an ingest's bytes are known to be right.
type verdict int

const (
	arriving verdict = iota
	right
	failed
)

// A view is what the readers of an ingest see of its progress.
type view struct {
	begun   bool  // the size is told, or told to be unknown
	size    int64 // -1: not known
	written int64
	onDisk  int64   // how many of the bytes written are in the file
	source  *source // the file; nil: there is none
	passing bool    // no bytes go to the file any more
	gathers bool    // the bytes stay in memory until they are right, and go to a file then
	// gathered are the bytes so far of what gathers, or the first ones of a large blob.
	gathered []byte
	verdict  verdict
	err      error // why it failed
	stored   bool  // the shard has the blob
}

// A source is the file that holds the first bytes of an ingest.
type source struct {
	file  *file    // the writer's; open until the last follower has left
	names []string // the names that the file has, one after the other
}

// open opens another descriptor of the file, so that the caller can use sendfile.
// It returns nil if the process has too many, or if the names now belong to other
// files.
func (s *source) open() *file {
	for _, name := range s.names {
		f, err := s.file.root.open(name)
		if err != nil {
			continue
		}
		if same, err := f.same(s.file); err == nil && same {
			return f
		}
		_ = f.close() // only looked at
	}
	return nil
}

// firstByte reports whether a byte can be sent.
func (v view) firstByte() bool {
	return v.verdict != arriving || v.begun && (v.size > HoldBack || v.size < 0 && v.written > HoldBack)
}

// most returns the offset up to which a response that goes to end may be sent
// before the verdict.
func (v view) most(end int64) int64 {
	if v.size >= 0 && end >= v.size {
		return v.size - HoldBack
	}
	return end
}

// limit returns the offset up to which a response that goes to end may be sent now.
func (v view) limit(end int64) int64 {
	switch {
	case v.verdict == right:
		return min(end, v.written)
	case v.verdict == failed && errors.Is(v.err, ErrDigest):
		return 0
	default:
		return min(v.most(end), v.written-v.margin())
	}
}

// margin returns how many of the bytes written are held back. If the size is not
// known, any of them could be the last.
func (v view) margin() int64 {
	if v.size < 0 {
		return HoldBack
	}
	return 0
}

// isRight reports whether the bytes are known to be right.
func (v view) isRight() bool { return v.verdict == right }

// sendable returns how many bytes readers can get now.
func (v view) sendable() int64 {
	switch {
	case v.verdict == right:
		return v.written
	case !v.begun:
		return 0
	}
	return max(v.written-HoldBack, 0)
}

// keeping reports whether the shard has the blob, or will have it as far as can be
// seen now.
func (v view) keeping() bool {
	return v.stored || v.verdict == arriving && (v.source != nil || v.gathers) && !v.passing
}
