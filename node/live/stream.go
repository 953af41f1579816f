package live

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// A stream writes events to one client.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// hurried is a writer that can be told how long a piece may take, as wire.Paced.
type hurried interface{ Within(each time.Duration) }

func newStream(w http.ResponseWriter) *stream {
	if paced, ok := w.(hurried); ok {
		paced.Within(pieceTime)
	}
	return &stream{w, http.NewResponseController(w)}
}

// opening is what a stream begins with.
func opening(hello []byte) []byte {
	return fmt.Appendf(nil, "retry: %d\n\n%s", retry.Milliseconds(), event("hello", hello))
}

// event is one event. data is JSON on one line.
func event(name string, data []byte) []byte {
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, data)
}

// write writes, and reports whether the client may still be there.
func (s *stream) write(p []byte) bool {
	if _, err := s.w.Write(p); err != nil {
		return false // the request's log line says that the client left
	}
	return s.control.Flush() == nil
}

// follow writes what a listener hears, until ctx ends or it is dropped.
func (s *stream) follow(ctx context.Context, me *listener) {
	beat := time.NewTimer(heartbeat)
	defer beat.Stop()
	for {
		next := []byte(": nothing new\n\n")
		select {
		case next = <-me.queue:
		case <-beat.C:
		case <-me.dropped:
			return
		case <-ctx.Done():
			return
		}
		if !s.write(next) {
			return
		}
		beat.Reset(heartbeat)
	}
}
