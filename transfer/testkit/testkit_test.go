package testkit_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestFuseFailsTheCallsItShould(t *testing.T) {
	t.Parallel()
	err := errors.New("broken")
	for _, c := range []struct {
		at   int64
		good bool
		want string
	}{{0, false, "...."}, {0, true, "...."}, {2, false, ".x.."}, {2, true, ".xxx"}} {
		f, got := &testkit.Fuse{At: c.at, ForGood: c.good, Err: err}, ""
		for range 4 {
			if e := f.Fault("write", "file"); errors.Is(e, err) {
				got += "x"
			} else {
				got += "."
			}
		}
		if got != c.want || f.Calls() != 4 || (f.Blown() == "write file") != (c.at > 0) {
			t.Errorf("%+v: calls %s, of %d, blown at %q", c, got, f.Calls(), f.Blown())
		}
	}
}

func TestLogTellsOfMore(t *testing.T) {
	t.Parallel()
	var log testkit.Log
	if log.String() != "" || log.Has("a") {
		t.Errorf("at first: %q", log.String())
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.WriteString(&log, "ab")
		_, _ = io.WriteString(&log, "a")
	})
	log.Await(t, "a", 2)
	wg.Wait()
	if log.String() != "aba" || log.Count("a") != 2 || !log.Has("b") {
		t.Errorf("then: %q", log.String())
	}
}

func TestHappensEnds(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
		began, asked := time.Now(), 0
		if testkit.Happens(time.Minute, func() bool { return false }) || time.Since(began) < time.Minute {
			t.Errorf("what never happens happened after %v", time.Since(began))
		}
		testkit.Await(t, "the third question", func() bool { asked++; return asked == 3 })
		if asked != 3 {
			t.Errorf("asked %d times", asked)
		}
	})
}

func TestSpySeesSendfile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	testkit.Replace(t, path, "old")
	testkit.Replace(t, path, "hello")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	spy := &testkit.Spy{Listener: l}
	defer spy.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := spy.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		_, _ = io.WriteString(c, "oh ")
		_, _ = io.Copy(c, io.LimitReader(f, 5))
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	wg.Wait()
	if err != nil || string(got) != "oh hello" || spy.Files() != 5 {
		t.Errorf("got %q, %v; %d bytes came from a file", got, err, spy.Files())
	}
}
