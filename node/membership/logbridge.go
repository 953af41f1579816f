package membership

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// logLines bounds the lines that gossip may log in a window: strangers can make
// it log.
const logLines = 100

// A logBridge logs each message at most once a minute. It also takes memberlist's
// own log, which writes thousands of lines about the same few things in an outage.
type logBridge struct {
	log       *slog.Logger
	misplaced func() bool // the others don't reach this node at all; nil: they do

	mu      sync.Mutex                        // guards the fields below; never held during I/O
	quiet   *simplelru.LRU[string, time.Time] // until when a message is not logged again
	began   time.Time                         // when the window began
	lines   int                               // logged in this window
	dropped int                               // not logged in this window, as there were too many
	udp     [2]time.Time                      // when packets to members that answer were first and last found lost
}

func newLogBridge(log *slog.Logger) *logBridge {
	quiet, err := simplelru.NewLRU[string, time.Time](logLines, nil)
	if err != nil {
		panic("membership: " + err.Error()) // only for a size below 1
	}
	return &logBridge{log: log, quiet: quiet}
}

// levels are memberlist's. What it calls an error is another node's fault.
var levels = map[string]slog.Level{
	"DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo, "WARN": slog.LevelWarn, "ERR": slog.LevelWarn, "ERROR": slog.LevelWarn,
}

// noise lists messages that memberlist logs for each connection.
var noise = []string{"Stream connection", "Initiating push/pull"}

// Write takes a line of memberlist's log.
func (b *logBridge) Write(line []byte) (int, error) {
	text, level := strings.TrimSpace(string(line)), slog.LevelWarn
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
	if strings.Contains(text, "but UDP probes failed") { // memberlist says so for each member
		if b.lasts(time.Now()) && (b.misplaced == nil || !b.misplaced()) {
			b.tell(level, "members answer over TCP but not over UDP: open the gossip port for UDP, or dead members are noticed late")
		}
		return len(line), nil
	}
	text, _, _ = strings.Cut(text, " meta:(") // bytes as numbers follow
	b.tell(level, "message from memberlist", "text", text)
	return len(line), nil
}

// lasts notes that packets are lost, and reports whether they have been for a while. A
// node that advertises a wrong address looks just so, until the others have told it.
func (b *logBridge) lasts(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.udp[1]) > logWindow {
		b.udp[0] = now
	}
	b.udp[1] = now
	return now.Sub(b.udp[0]) >= udpAfter
}

// port matches the only difference between lines about two connections.
var port = regexp.MustCompile(`:\d+\b`)

// tell logs the message unless it was logged in the last minute. Messages with
// different arguments are different.
func (b *logBridge) tell(level slog.Level, message string, args ...any) {
	if !b.log.Enabled(context.Background(), level) {
		return
	}
	first, dropped := b.first(port.ReplaceAllString(message+fmt.Sprint(args...), ""))
	if dropped > 0 {
		b.log.Warn("too many messages from gossip, some were not logged", "dropped", dropped)
	}
	if first {
		b.log.Log(context.Background(), level, message, args...)
	}
}

// first reports whether to log the message of that key, and how many messages
// the last window dropped if this one begins a new window.
func (b *logBridge) first(key string) (first bool, dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if now.Sub(b.began) >= logWindow {
		dropped = b.dropped
		b.began, b.lines, b.dropped = now, 0, 0
	}
	if until, ok := b.quiet.Get(key); ok && now.Before(until) {
		return false, dropped
	}
	if b.lines == logLines {
		b.dropped++
		return false, dropped
	}
	b.lines++
	b.quiet.Add(key, now.Add(logWindow))
	return true, dropped
}
