package testkit

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
)

// ports counts the ports that FreeAddr has given out.
var ports atomic.Int32

func init() { ports.Store(rand.Int32N(10_000)) }

// FreeAddr returns an address of that host, such as 127.0.0.1, at which nothing listens:
// for what is to listen there later, or again, or never. Its port is below those that
// systems hand out by themselves, as one of those may be somebody else's a moment later.
// It skips the test if the machine has no such host.
func FreeAddr(t testing.TB, host string) string {
	t.Helper()
	var err error
	for range 100 {
		addr := net.JoinHostPort(host, strconv.Itoa(20_000+int(ports.Add(1)%10_000)))
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			_ = l.Close() // nobody has connected
			return addr
		}
	}
	t.Skipf("nothing can listen on %s: %v", host, err)
	return ""
}
