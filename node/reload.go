package node

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// lookEvery is how often, at most, files are looked at that may change.
const lookEvery = 2 * time.Second

// A watched is what some files say, read again when they change. What can't be
// read leaves what was there before: a node must not lose its certificate or
// its users to an editor's half-written file.
type watched[T any] struct {
	name  string // for the log
	files []string
	read  func() (T, error)
	log   *slog.Logger

	mu     sync.Mutex
	looked time.Time
	stamp  string
	value  T
	err    error // of the last reading
}

// newWatched reads the files for the first time.
func newWatched[T any](name string, files []string, read func() (T, error), log *slog.Logger) (*watched[T], error) {
	w := &watched[T]{name: name, files: files, read: read, log: log, looked: time.Now()}
	w.stamp = w.stamps()
	w.value, w.err = read()
	if w.err != nil {
		return nil, fmt.Errorf("%s: %w", name, w.err)
	}
	return w, nil
}

// get returns what the files say, or said last.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look()
	return w.value
}

// health returns what is wrong with the files as they are now.
func (w *watched[T]) health() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look()
	return w.err
}

// look reads the files again if they have changed, or were bad: what two files
// say may fit together a moment later.
func (w *watched[T]) look() {
	if time.Since(w.looked) < lookEvery {
		return
	}
	w.looked = time.Now()
	stamp := w.stamps()
	if stamp == w.stamp && w.err == nil {
		return
	}
	fresh := stamp != w.stamp
	w.stamp = stamp
	value, err := w.read()
	w.err = err
	switch {
	case err == nil:
		w.value = value
		w.log.Info(w.name + ": read again")
	case fresh:
		w.log.Error(w.name+": can't be read again; what it said before stays", "error", err)
	}
}

// stamps tells the files' states apart.
func (w *watched[T]) stamps() string {
	var b strings.Builder
	for _, file := range w.files {
		info, err := os.Stat(file)
		if err != nil {
			fmt.Fprintf(&b, "%v;", err)
			continue
		}
		fmt.Fprintf(&b, "%d %d", info.Size(), info.ModTime().UnixNano())
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintf(&b, " %d %d", s.Dev, s.Ino) // another file by the same name
		}
		b.WriteByte(';')
	}
	return b.String()
}
