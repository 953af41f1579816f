package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
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
	text, err := json.Marshal(what)
	if err != nil {
		return end, err
	}
	resp, err := t.do(ctx, http.MethodPost, path, http.Header{"Content-Type": {"application/json"}}, func() io.Reader { return bytes.NewReader(text) })
	if err != nil {
		return end, fmt.Errorf("asking %s to %s: %w", t.addr, doing, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		_, err := answered(resp)
		return end, fmt.Errorf("asking %s to %s: %w", t.addr, doing, err)
	}
	for dec := json.NewDecoder(resp.Body); ; {
		var one json.RawMessage
		var l orderLine
		err := dec.Decode(&one)
		if err == nil {
			err = json.Unmarshal(one, &l)
		}
		if err != nil {
			return end, fmt.Errorf("reading the answer of %s: %w", t.addr, err)
		}
		if raw != nil {
			fmt.Fprintf(raw, "%s\n", one)
		} else if !l.Done {
			each(l)
		}
		if l.Done {
			return l, nil
		}
	}
}

// printMissing says which members did not answer.
func printMissing(all []missing, s streams) {
	for _, m := range all {
		fmt.Fprintf(s.err, "%s did not answer: %s\n", m.Name, m.Reason)
	}
}

// missing is a member that did not answer, and why.
type missing struct{ Name, Reason string }
