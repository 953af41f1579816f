// Package reload keeps what files say while a node runs. Files that change are
// read again ([Files]). Files that cannot be read leave the last good value in
// use: a half-written file must not cost a node its certificate or its users.
package reload

import (
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

// Files is the value that some files give together.
type Files[T any] struct {
	key   string // of the config, for logs and health
	paths []string
	read  func() (T, error)
	log   *slog.Logger

	mu      sync.Mutex // guards the fields below; never held during I/O
	looked  time.Time
	looking bool
	now     reading[T]
}

// A reading is what one look at the files gave.
type reading[T any] struct {
	stamp string // tells the states of the files apart
	value T      // the last good one
	err   error  // of the last read
}

// Open reads the files for the first time. key is the config's key for them.
func Open[T any](key string, paths []string, read func() (T, error), log *slog.Logger) (*Files[T], error) {
	f := &Files[T]{key: key, paths: paths, read: read, log: log, looked: time.Now()}
	f.now.stamp = stamp(paths)
	var err error
	if f.now.value, err = read(); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return f, nil
}

// Get returns the last good value.
func (f *Files[T]) Get() T { return f.current().value }

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
	last, due := f.begin()
	if !due {
		return last
	}
	next := f.look(last)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now, f.looking = next, false
	return next
}

// begin returns the last reading, and whether the caller is to look now.
func (f *Files[T]) begin() (last reading[T], due bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.looking || time.Since(f.looked) < Every {
		return f.now, false
	}
	f.looking, f.looked = true, time.Now()
	return f.now, true
}

// look reads the files again if they changed or were bad: two files may not fit
// together now and do so a moment later.
func (f *Files[T]) look(last reading[T]) reading[T] {
	next := reading[T]{stamp: stamp(f.paths), value: last.value}
	changed := next.stamp != last.stamp
	if !changed && last.err == nil {
		return last
	}
	value, err := f.read()
	next.err = err
	switch {
	case err == nil:
		next.value = value
		f.log.Info("files read again", "key", f.key)
	case changed:
		f.log.Error("changed files cannot be read; their last good content stays in use", "key", f.key, "error", err)
	}
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
