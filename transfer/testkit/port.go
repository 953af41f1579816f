package testkit

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// The ports that FreeAddr gives are below those that systems hand out by themselves, as one of
// those may be somebody else's a moment later. Each process that runs tests has a block of its
// own: another one would find a port free that is to be listened at later, or never.
const (
	firstPort = 20_000
	blocks    = 40
	blockSize = 250
)

// block is where this process' block begins. It listens at that port as long as it runs, so that
// no other chooses the block.
var block = sync.OnceValues(func() (first int, held net.Listener) {
	from := rand.IntN(blocks)
	for i := range blocks {
		first = firstPort + (from+i)%blocks*blockSize
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(first))); err == nil {
			return first, l
		}
	}
	return first, nil
})

// given counts the ports that FreeAddr has tried.
var given atomic.Int64

// FreeAddr returns an address of that host, such as 127.0.0.1, at which nothing listens:
// for what is to listen there later, or again, or never. It skips the test if the machine
// has no such host.
func FreeAddr(t testing.TB, host string) string {
	t.Helper()
	first, _ := block()
	var err error
	for range 100 {
		addr := net.JoinHostPort(host, strconv.Itoa(first+1+int(given.Add(1)%(blockSize-1))))
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			_ = l.Close() // nobody has connected
			return addr
		}
	}
	t.Skipf("nothing can listen on %s: %v", host, err)
	return ""
}
