package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A load is what clients ask for. Each has a connection of its own, and asks anew as soon as it
// has an answer.
type load struct {
	clients int
	head    bool
	count   int     // how many requests there are in all, 0: as many as the time allows
	pace    float64 // bytes a second that the registry sends at most in each answer, 0: no bound
	delay   int     // milliseconds that the registry waits before it answers
	fresh   bool    // the server is started for each measurement
	first   bool    // the server's first node is asked before, which is not measured
	ask     func(b *Bench, round, count int) (paths []string, err error)
	at      func(n int) int // which of the server's nodes gets the nth request; nil: the first
}

// send sends the load to a server.
func (l load) send(ctx context.Context, addrs, asks []string, d time.Duration) (result, error) {
	var next atomic.Int64
	var over atomic.Bool
	began := time.Now()
	if l.count == 0 {
		defer time.AfterFunc(d, func() { over.Store(true) }).Stop()
	}
	results := make([]result, l.clients)
	errs := make([]error, l.clients)
	var all sync.WaitGroup
	for i := range l.clients {
		all.Go(func() { results[i], errs[i] = l.client(ctx, addrs, asks, &next, &over) })
	}
	all.Wait()
	sum := result{took: time.Since(began)}
	var firsts []float64
	for _, r := range results {
		sum.requests += r.requests
		sum.bytes += r.bytes
		firsts = append(firsts, float64(r.first))
	}
	sum.first = time.Duration(median(firsts))
	if l.count > 0 && l.count == l.clients {
		sum.first = time.Duration(slices.Max(firsts))
		sum.took *= time.Duration(l.clients) // all were one: total is that of the last
	}
	return sum, first(errs)
}

// first returns the first error.
func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// client is one client.
func (l load) client(ctx context.Context, addrs, asks []string, next *atomic.Int64, over *atomic.Bool) (sum result, err error) {
	conns := map[int]*client{} // by the node they lead to
	defer func() {
		for _, c := range conns {
			c.conn.Close()
		}
	}()
	var firsts []float64
	for !over.Load() && ctx.Err() == nil {
		n := next.Add(1) - 1
		if l.count > 0 && n >= int64(l.count) {
			break
		}
		node := 0
		if l.at != nil {
			node = l.at(int(n)) % len(addrs)
		}
		c := conns[node]
		if c == nil {
			if c, err = dial(ctx, addrs[node]); err != nil {
				return sum, err
			}
			conns[node] = c
		}
		a, err := c.get(l.head, asks[int(n)%len(asks)], nil, over)
		if err != nil {
			return sum, err
		}
		sum.requests += float64(a.bytes) / float64(a.size)
		sum.bytes += a.bytes
		firsts = append(firsts, float64(a.first))
	}
	if len(firsts) > 0 {
		sum.first = time.Duration(median(firsts))
	}
	return sum, nil
}

// A client is a connection that stays open.
type client struct {
	conn     net.Conn
	request  []byte
	received []byte
}

// dial connects to a server.
func dial(ctx context.Context, addr string) (*client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, received: make([]byte, 256<<10)}, conn.SetDeadline(time.Now().Add(15 * time.Minute))
}

// errAnswer is the error of an answer that a client does not understand.
var errAnswer = errors.New("an answer that was not expected")

// An answer is what came of one.
type answer struct {
	size, bytes int64 // of its body; of that, what came before all was over
	first       time.Duration
}

// get sends a request and reads the answer, until all is over. sum, if it is not nil, gets the body.
func (c *client) get(head bool, path string, sum hash.Hash, over *atomic.Bool) (a answer, err error) {
	method := "GET "
	if head {
		method = "HEAD "
	}
	c.request = append(append(append(c.request[:0], method...), path...), " HTTP/1.1\r\nHost: localhost\r\nAccept: application/vnd.oci.image.manifest.v1+json\r\nUser-Agent: bench/1.0\r\n\r\n"...)
	began := time.Now()
	if _, err := c.conn.Write(c.request); err != nil {
		return a, err
	}
	n, end := 0, -1
	for end < 0 {
		k, err := c.conn.Read(c.received[n:])
		if err != nil {
			return a, fmt.Errorf("reading %s: %w", path, err)
		}
		n += k
		end = bytes.Index(c.received[:n], []byte("\r\n\r\n"))
	}
	a.first = time.Since(began)
	if a.size, err = length(c.received[:end+2]); err != nil {
		return a, fmt.Errorf("%s: %w", path, err)
	}
	if head {
		a.bytes = a.size // so it counts as one request
		return a, nil
	}
	body := c.received[end+4 : n]
	for {
		if sum != nil {
			sum.Write(body)
		}
		if a.bytes += int64(len(body)); a.bytes >= a.size || over.Load() {
			return a, nil
		}
		k, err := c.conn.Read(c.received[:min(a.size-a.bytes, int64(len(c.received)))])
		if err != nil {
			return a, fmt.Errorf("reading %s: %w", path, err)
		}
		body = c.received[:k]
	}
}

// length returns the Content-Length of an answer with status 200.
func length(header []byte) (int64, error) {
	_, value, told := bytes.Cut(header, []byte("\r\nContent-Length: "))
	if !bytes.HasPrefix(header, []byte("HTTP/1.1 200 ")) || !told {
		return 0, fmt.Errorf("%w: %q", errAnswer, header)
	}
	n, err := strconv.ParseInt(string(value[:bytes.IndexByte(value, '\r')]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errAnswer, err)
	}
	return n, nil
}

// check asks for content once, and compares what comes with the digest in its path, if it has one.
func check(ctx context.Context, addr, name string) error {
	c, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	sum := sha256.New()
	if _, err := c.get(false, name, sum, new(atomic.Bool)); err != nil {
		return err
	}
	if want, is := strings.CutPrefix(path.Base(name), "sha256:"); is && want != hex.EncodeToString(sum.Sum(nil)) {
		return fmt.Errorf("%w: other bytes than %s", errAnswer, name)
	}
	return nil
}
