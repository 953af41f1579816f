package membership

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Bounds of what gossip may log, for strangers can make it speak.
const (
	logWindow = time.Minute
	logLines  = 100 // different ones in a window
)

// A murmur logs each message once a minute. It is also memberlist's log, whose
// thousands of lines in an outage tell the same few things.
type murmur struct {
	log *slog.Logger

	mu      sync.Mutex
	began   time.Time
	said    map[string]bool
	dropped int
}

// levels of memberlist. What it calls an error is another node's.
var levels = map[string]slog.Level{
	"DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo, "WARN": slog.LevelWarn, "ERR": slog.LevelWarn, "ERROR": slog.LevelWarn,
}

// noise are messages of which each connection makes one.
var noise = []string{"Stream connection", "Initiating push/pull"}

// Write takes a line of memberlist's.
func (q *murmur) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level := slog.LevelWarn
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if name, message, ok := strings.Cut(rest, "] "); ok {
			text = message
			if l, ok := levels[name]; ok {
				level = l
			}
		}
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	for _, n := range noise {
		if strings.HasPrefix(text, n) {
			return len(line), nil
		}
	}
	text, _, _ = strings.Cut(text, " meta:(") // bytes as numbers follow
	if strings.Contains(text, "but UDP probes failed") {
		text = "members answer over TCP but not over UDP: is its port blocked? Losses are seen late" // of each member one line
	}
	q.tell(level, "gossip: "+text)
	return len(line), nil
}

// port is all in which lines about one connection and the next differ.
var port = regexp.MustCompile(`:\d+\b`)

// tell logs the message unless it was logged within the minute. The arguments
// belong to it.
func (q *murmur) tell(level slog.Level, message string, args ...any) {
	key := port.ReplaceAllString(message+fmt.Sprint(args...), "")
	if !q.log.Enabled(context.Background(), level) || !q.first(key) {
		return
	}
	q.log.Log(context.Background(), level, message, args...)
}

// first tells whether the key is new in this minute.
func (q *murmur) first(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if q.said == nil || now.Sub(q.began) >= logWindow {
		if q.dropped > 0 {
			q.log.Warn("gossip: more was to be told than is logged", "dropped", q.dropped)
		}
		q.began, q.said, q.dropped = now, map[string]bool{}, 0
	}
	if q.said[key] {
		return false
	}
	if len(q.said) == logLines {
		q.dropped++
		return false
	}
	q.said[key] = true
	return true
}
