package cache

import (
	"errors"
	"sync/atomic"
)

// Verified are bytes whose digest or sum was computed and compared.
type Verified struct {
	Right, Bad int64 // bytes
}

// verified counts what a store verifies.
type verified struct{ incoming, held judged }

// judged counts bytes by whether they were right.
type judged struct{ right, bad atomic.Int64 }

// note counts n bytes.
func (j *judged) note(n int64, right bool) {
	if right {
		j.right.Add(n)
	} else {
		j.bad.Add(n)
	}
}

// figures returns the counts.
func (j *judged) figures() Verified { return Verified{j.right.Load(), j.bad.Load()} }

// figures returns the counts.
func (v *verified) figures() (incoming, held Verified) { return v.incoming.figures(), v.held.figures() }

// ended counts the n bytes of an ingest that ended so. One that broke off tells nothing
// about its bytes.
func (v *verified) ended(n int64, how verdict, err error) {
	if how == right || errors.Is(err, ErrDigest) {
		v.incoming.note(n, how == right)
	}
}
