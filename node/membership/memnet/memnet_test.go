package memnet_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/node/membership/memnet"
)

const one, two = "10.0.0.1:7946", "10.0.0.2:7946"

// arrives reports whether a packet from one host reaches another within a second.
func arrives(t *testing.T, from, to *memnet.Transport) bool {
	t.Helper()
	if _, err := from.WriteTo([]byte("hello"), two); err != nil {
		t.Fatal(err)
	}
	select {
	case p := <-to.PacketCh():
		return string(p.Buf) == "hello" && p.From.String() == one
	case <-time.After(time.Second):
		return false
	}
}

func TestPacketsArriveUnlessTheLinkIsBroken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New(1)
		a, b := n.Host(one), n.Host(two)
		for _, step := range []struct {
			name string
			do   func()
			want bool
		}{
			{"at first", func() {}, true},
			{"cut", func() { n.Cut([]string{"10.0.0.1"}, []string{"10.0.0.2"}) }, false},
			{"healed", func() { n.Cut() }, true},
			{"all packets lost", func() { n.Lose(1) }, false},
			{"none lost", func() { n.Lose(0) }, true},
			{"only streams", func() { n.Packets(false) }, false},
			{"packets again", func() { n.Packets(true) }, true},
			{"the other hangs", func() { n.Hang("10.0.0.2", true) }, false},
			{"it wakes", func() { n.Hang("10.0.0.2", false) }, true},
		} {
			step.do()
			if got := arrives(t, a, b); got != step.want {
				t.Errorf("%s: arrives is %v", step.name, got)
			}
		}
	})
}

func TestStreamsCarryBytesBothWays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New(1)
		a, b := n.Host(one), n.Host(two)
		here, err := a.DialTimeout(two, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		there := <-b.StreamCh()
		for _, way := range [][2]net.Conn{{here, there}, {there, here}} {
			if _, err := io.WriteString(way[0], "hello"); err != nil {
				t.Error(err)
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(way[1], got); err != nil || string(got) != "hello" {
				t.Errorf("%q, %v", got, err)
			}
		}
		_ = here.SetDeadline(time.Now().Add(time.Second))
		if _, err := here.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("past the deadline: %v", err)
		}
		_ = here.Close()
		if _, err := there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after the other's close: %v", err)
		}
	})
}

func TestDialsFailAsOnARealNetwork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New(1)
		a, b := n.Host(one), n.Host(two)
		n.Cut([]string{"10.0.0.1"}, []string{"10.0.0.2"})
		began := time.Now()
		if _, err := a.DialTimeout(two, time.Second); !errors.Is(err, syscall.ETIMEDOUT) || time.Since(began) < time.Second {
			t.Errorf("over a cut: %v after %v", err, time.Since(began))
		}
		n.Cut()
		if err := b.Shutdown(); err != nil {
			t.Error(err)
		}
		if _, err := a.DialTimeout(two, time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("of a dead host: %v", err)
		}
		if _, err := b.DialTimeout(one, time.Second); !errors.Is(err, net.ErrClosed) {
			t.Errorf("by a dead host: %v", err)
		}
	})
}

// Starved hosts hear each other in their turns only, by packets and streams.
func TestStarvedHostsWaitForTheirTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turn := memnet.Turn{On: 20 * time.Millisecond, Each: 400 * time.Millisecond}
		n := memnet.New(1)
		a, b := n.Host(one), n.Host(two)
		n.Starve(turn)
		here, err := a.DialTimeout(two, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		there := <-b.StreamCh()
		in := map[time.Duration]bool{}
		for range 100 {
			if _, err := here.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(there, make([]byte, 1)); err != nil {
				t.Error(err)
			}
			in[time.Duration(time.Now().UnixNano())%turn.Each] = true
			if !arrives(t, a, b) {
				t.Error("a packet did not arrive")
			}
			in[time.Duration(time.Now().UnixNano())%turn.Each] = true
			<-time.After(17 * time.Millisecond)
		}
		least, most := turn.Each, time.Duration(0)
		for at := range in {
			least, most = min(least, at), max(most, at)
		}
		if most-least > turn.On {
			t.Errorf("a host reads from %v to %v of each %v, want %v of it", least, most, turn.Each, turn.On)
		}
		n.Starve(memnet.Turn{})
		began := time.Now()
		if !arrives(t, a, b) || time.Since(began) > time.Millisecond {
			t.Errorf("no host is starved any more: %v", time.Since(began))
		}
	})
}
