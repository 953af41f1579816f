package logins

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/wait"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// secret is in no error, log or health.
const secret = "canary-5b1e"

// script writes a program, and returns its path.
func script(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

// rest passes virtual time.
func rest(d time.Duration) { <-time.After(d) }

func closed(life *wait.Life) {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	life.Close(now)
}

// logged returns a logger and what it logs.
func logged() (*slog.Logger, *testkit.Log) {
	log := new(testkit.Log)
	return slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), log
}

// A counter is a Getter's source: it counts the tries, and each login has its number.
type counter struct {
	tries atomic.Int64
	login func(n int64) (Login, error)
}

func (c *counter) get(context.Context) (Login, error) { return c.login(c.tries.Add(1)) }

func wantTries(t *testing.T, c *counter, want int64) {
	t.Helper()
	if n := c.tries.Load(); n != want {
		t.Errorf("%d tries, want %d", n, want)
	}
}

// silent fails if the secret is in a text.
func silent(t *testing.T, texts ...any) {
	t.Helper()
	if all := fmt.Sprint(texts...); strings.Contains(all, secret) {
		t.Errorf("a secret is told: %s", all)
	}
}
