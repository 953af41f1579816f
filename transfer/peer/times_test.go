package peer

import (
	"log/slog"
	"testing"
	"time"
)

func TestTimesAreThoseOfTheProtocol(t *testing.T) {
	t.Parallel()
	c := NewClient(ClientConfig{})
	defer c.Close()
	if want := (times{39 * time.Second, time.Second, 100 * time.Millisecond, 2 * time.Second, 10 * time.Second}); c.times != want {
		t.Errorf("%+v, want %+v", c.times, want)
	}
	if c.links.handshake != handshakeTime {
		t.Errorf("a handshake may take %v, want %v", c.links.handshake, handshakeTime)
	}
}

// TestTimesAreInOrder states for each time-out which other one is longer, and by how much
// at least.
func TestTimesAreInOrder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		short, by, long time.Duration
		why             string
	}{
		{answerTime, time.Second, callTime, "a node hears that the registry is late before it gives up on the peer"},
		{examineTime, time.Second, callTime, "a node hears what a member found before it gives up on it"},
		{callTime, time.Second, clientTime, "a client is told before its time is over"},
		{callTime, time.Second, pieceTime, "the asker gives up on a small answer before its sender does"},
		{hungTime, 500 * time.Millisecond, peekTime, "a member that hangs costs a pull less than one that may be late"},
		{peekTime, time.Second, progressTime, "a pull waits for a peek, and for no sign of life"},
		{progressTime, time.Second, answerTime, "a peer is known to hang before its answer is late"},
		{3 * (dialTime + handshakeTime), time.Second, 10 * time.Second, "three nodes that can't be reached take a client less than 10 s"},
		{peekTime, time.Second, strangeTime, "a peek is made again at a member that gossip tells of this node late"},
		{3 * strangeTime, time.Second, 10 * time.Second, "three nodes that never know this one take a client less than 10 s"},
		{strangeTime, time.Second, answerTime, "there is time to ask another node instead of one that does not know this one"},
		{busyTime + busyStep, time.Second, answerTime, "there is time to ask another node instead of a busy one"},
		{deadTime, time.Second, answerTime, "a dead connection ends before the call over it does"},
		{bodyTime, 0, headerTime, "a request's body comes with its header"},
		{clientIdle, 10 * time.Second, serverIdle, "the client gives up an idle connection first"},
		{firstQuarantine, time.Second, lastQuarantine, "quarantine grows"},
	} {
		if c.short+c.by > c.long {
			t.Errorf("%v is not %v shorter than %v: %s", c.short, c.by, c.long, c.why)
		}
	}
}

func TestAnsweringConnectionsHaveAnEnd(t *testing.T) {
	t.Parallel()
	srv := NewServer(ServerConfig{Log: slog.New(slog.DiscardHandler)}).HTTP(nil)
	if srv.ReadHeaderTimeout != 10*time.Second || srv.IdleTimeout != 2*time.Minute || srv.MaxHeaderBytes != 32*kib || srv.WriteTimeout != 0 || srv.Protocols.HTTP2() || srv.Protocols.UnencryptedHTTP2() {
		t.Errorf("%+v", srv)
	}
}
