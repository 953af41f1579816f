package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
)

// An orderLine is a line of a node's answer to an order: about one image, blob or node, or
// at the end about all.
type orderLine struct {
	Image, Digest, Pattern, Node, Registry, Error string
	Blobs, Of, Images, Tags, Failed, Bad          int
	Bytes                                         int64
	Missing                                       []missing
	Done                                          bool
}

// order makes a node do something, and calls each with its lines as they come. raw prints
// them as they are instead. It returns the last line. doing says what, for errors.
func (t target) order(ctx context.Context, doing, path string, what any, raw io.Writer, each func(l orderLine)) (end orderLine, err error) {
	err = t.lines(ctx, doing, path, what, func(one json.RawMessage) (bool, error) {
		var l orderLine
		if err := json.Unmarshal(one, &l); err != nil {
			return true, fmt.Errorf("reading the answer of %s: %w", t.addr, err)
		}
		switch {
		case raw != nil:
			fmt.Fprintf(raw, "%s\n", one)
		case !l.Done:
			each(l)
		}
		end = l
		return l.Done, nil
	})
	return end, err
}

// printMissing says which members did not answer.
func printMissing(all []missing, s streams) {
	for _, m := range all {
		fmt.Fprintf(s.err, "%s did not answer: %s\n", m.Name, m.Reason)
	}
}

// missing is a member that did not answer, and why.
type missing struct{ Name, Reason string }
