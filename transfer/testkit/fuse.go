package testkit

import (
	"io/fs"
	"sync/atomic"
)

// A Fuse makes one file call of a store fail. Its method Fault is the store's seam.
type Fuse struct {
	At      int64 // the number of the call that fails, from 1; 0: none
	ForGood bool  // all calls after it fail too
	Err     error

	calls atomic.Int64
	blown atomic.Pointer[string]
}

// Fault counts a file call, and returns the error if it fails.
func (f *Fuse) Fault(op, name string) error {
	n := f.calls.Add(1)
	if f.At == 0 || n < f.At || n > f.At && !f.ForGood {
		return nil
	}
	if n == f.At {
		call := op + " " + name
		f.blown.Store(&call)
	}
	return &fs.PathError{Op: op, Path: name, Err: f.Err}
}

// Calls returns how many file calls there were.
func (f *Fuse) Calls() int64 { return f.calls.Load() }

// Blown returns the call that failed first, "" if none has failed.
func (f *Fuse) Blown() string {
	if call := f.blown.Load(); call != nil {
		return *call
	}
	return ""
}
