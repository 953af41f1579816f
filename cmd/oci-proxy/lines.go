package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// lines posts what to a path of the node, and calls each with the lines of JSON that it
// answers, as they come, until one is the last. doing says what is asked, for errors.
func (t target) lines(ctx context.Context, doing, path string, what any, each func(line json.RawMessage) (last bool, err error)) error {
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	resp, err := t.do(ctx, http.MethodPost, path, http.Header{"Content-Type": {"application/json"}}, func() io.Reader { return bytes.NewReader(text) })
	if err != nil {
		return fmt.Errorf("asking %s to %s: %w", t.addr, doing, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		_, err := answered(resp)
		return fmt.Errorf("asking %s to %s: %w", t.addr, doing, err)
	}
	for dec := json.NewDecoder(resp.Body); ; {
		var one json.RawMessage
		if err := dec.Decode(&one); err != nil {
			return fmt.Errorf("reading the answer of %s: %w", t.addr, err)
		}
		if last, err := each(one); last || err != nil {
			return err
		}
	}
}
