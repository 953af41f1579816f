package testkit

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// A Log keeps what a logger writes. Goroutines may write to it and read it.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{} // closed at the next write; nil if nobody waits
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.text.Write(p)
}

// String returns all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Count returns how often text was written.
func (l *Log) Count(text string) int { return strings.Count(l.String(), text) }

// Has reports whether text was written.
func (l *Log) Has(text string) bool { return strings.Contains(l.String(), text) }

// Await waits until text was written at least n times. It fails the test after
// Patience.
func (l *Log) Await(t testing.TB, text string, n int) {
	t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	for {
		all, more := l.look()
		if strings.Count(all, text) >= n {
			return
		}
		select {
		case <-more:
		case <-timeout.C:
			t.Fatalf("%q is not %d times in\n%s", text, n, all)
		}
	}
}

// look returns all that was written, and a channel that is closed when there is more.
func (l *Log) look() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return l.text.String(), l.more
}
