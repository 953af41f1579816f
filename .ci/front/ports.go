package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
)

// Ports are chosen below the range from which the kernel takes the ports of
// outgoing connections, so that no such connection takes one of them later.
const (
	firstPort = 20000
	lastPort  = 32000
)

// printPorts writes n different ports of 127.0.0.1 that are free right now, one
// a line.
func printPorts(ctx context.Context, out io.Writer, n int) error {
	var listen net.ListenConfig
	for range 100 * n {
		if n == 0 {
			return nil
		}
		addr := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(lastPort-firstPort))
		l, err := listen.Listen(ctx, "tcp", addr)
		if err != nil {
			continue // Taken: try another.
		}
		defer l.Close() // Held until all are found, so that none comes twice.
		_, port, _ := net.SplitHostPort(addr)
		if _, err := fmt.Fprintln(out, port); err != nil {
			return fmt.Errorf("printing a port: %w", err)
		}
		n--
	}
	return errors.New("no free ports")
}
