// Package reload keeps what files say while a node runs. Files that change are
// read again ([Files]). Files that cannot be read leave the last good value in
// use: a half-written file must not cost a node its certificate or its users.
package reload

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Every is the least time from one look at the files to the next.
const Every = 2 * time.Second

// Pause is the least time from one reading to the next that Fresh asks for.
const Pause = 200 * time.Millisecond

// Files is the value that some files give together. Its methods may be called from any
// goroutine.
type Files[T any] struct {
	key   string // of the config, for logs and health
	paths []string
	read  func() (T, error)
	log   *slog.Logger
	turn  chan struct{} // whoever reads the files has put something in

	mu      sync.Mutex // guards the fields below; never held during I/O
	looked  time.Time
	now     reading[T]
	waiting chan struct{} // closed after the next reading for Fresh, nil if nobody waits for one
}

// A reading is what one look at the files gave.
type reading[T any] struct {
	stamp string // tells the states of the files apart
	value T      // the last good one
	err   error  // of the last read
}

// Open reads the files for the first time. key is the config's key for them.
func Open[T any](key string, paths []string, read func() (T, error), log *slog.Logger) (*Files[T], error) {
	f := &Files[T]{key: key, paths: paths, read: read, log: log, turn: make(chan struct{}, 1), looked: time.Now()}
	f.now.stamp = stamp(paths)
	var err error
	if f.now.value, err = read(); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return f, nil
}

// Get returns the last good value. It looks at the files if it is time.
func (f *Files[T]) Get() T { return f.current().value }

// Last returns the last good value at once. If it is time to look at the files, that
// happens meanwhile.
func (f *Files[T]) Last() T {
	if f.begin() {
		go func() {
			defer f.end()
			f.look(false)
		}()
	}
	return f.last().value
}

// Fresh returns the last good value after the files have been read once more, however
// unchanged they look: what they gave before has proved wrong. The reading begins after
// the call, Pause after the last one at the earliest, and all who wait for it share it.
// If ctx ends first, the last good value is returned.
func (f *Files[T]) Fresh(ctx context.Context) T {
	select {
	case <-f.next():
	case <-ctx.Done():
	}
	return f.last().value
}

// next returns what is closed after the next reading, and begins that.
func (f *Files[T]) next() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting == nil {
		f.waiting = make(chan struct{})
		go f.reread(f.waiting, Pause-time.Since(f.looked))
	}
	return f.waiting
}

// reread reads the files after a pause, once nobody else does.
func (f *Files[T]) reread(done chan struct{}, pause time.Duration) {
	defer close(done)
	<-time.After(pause)
	f.turn <- struct{}{}
	defer f.end()
	f.mu.Lock()
	f.waiting, f.looked = nil, time.Now() // whoever comes now has the next reading
	f.mu.Unlock()
	f.look(true)
}

// Health returns what is wrong with the files now, under the config's key.
func (f *Files[T]) Health() error {
	if err := f.current().err; err != nil {
		return fmt.Errorf("%s: %w", f.key, err)
	}
	return nil
}

// Expire makes the next use look at the files.
func (f *Files[T]) Expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked = time.Time{}
}

// current looks at the files if it is time. Only one caller looks; others go on
// with the last reading meanwhile.
func (f *Files[T]) current() reading[T] {
	if !f.begin() {
		return f.last()
	}
	defer f.end()
	return f.look(false)
}

// begin reports whether the caller is to look now. Then it has to call end.
func (f *Files[T]) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < Every {
		return false
	}
	select {
	case f.turn <- struct{}{}:
		f.looked = time.Now()
		return true
	default:
		return false
	}
}

// end lets others look.
func (f *Files[T]) end() { <-f.turn }

// last returns the last reading.
func (f *Files[T]) last() reading[T] {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// look reads the files again if they changed, were bad (two files may not fit together
// now and do so a moment later), or in any case.
func (f *Files[T]) look(anyway bool) reading[T] {
	last := f.last()
	next := reading[T]{stamp: stamp(f.paths), value: last.value}
	changed := next.stamp != last.stamp
	if !changed && last.err == nil && !anyway {
		return last
	}
	value, err := f.read()
	next.err = err
	switch {
	case err == nil:
		next.value = value
		if changed || last.err != nil {
			f.log.Info("files read again", "key", f.key)
		}
	case changed || last.err == nil:
		f.log.Error("changed files cannot be read; their last good content stays in use", "key", f.key, "error", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = next
	return next
}

// stamp tells states of the files apart.
func stamp(paths []string) string {
	var b strings.Builder
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%v;", err)
			continue
		}
		fmt.Fprintf(&b, "%d %d", info.Size(), info.ModTime().UnixNano())
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintf(&b, " %d %d", s.Dev, s.Ino) // another file of the same name
		}
		b.WriteByte(';')
	}
	return b.String()
}
