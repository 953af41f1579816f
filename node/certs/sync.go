package certs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// What a member can ask.
const (
	doChanges = "changes" // what came to the shelf after a place; which locks the node holds
	doStore   = "store"   // keep a value
	doDelete  = "delete"  // keep that there is no value
	doLock    = "lock"    // lend a lock, or for longer
	doUnlock  = "unlock"  // take it back
)

// A question is what one member asks of another. All but changes are for the keeper.
type question struct {
	Do    string `json:"do"`
	Name  string `json:"name,omitempty"`  // of a key or a lock
	Value []byte `json:"value,omitempty"` // may be a private key
	Shelf string `json:"shelf,omitempty"` // which the place is of
	After uint64 `json:"after,omitempty"` // the place; of what is to be kept: the highest version that the asker has seen
}

// A reply is the answer to a question.
type reply struct {
	Elsewhere bool     `json:"elsewhere,omitempty"` // the node is not the keeper
	Lent      bool     `json:"lent,omitempty"`
	Records   []record `json:"records,omitempty"`
	Shelf     string   `json:"shelf,omitempty"`
	After     uint64   `json:"after,omitempty"`
	More      bool     `json:"more,omitempty"`
	Held      []string `json:"held,omitempty"` // locks
}

var (
	errQuestion = errors.New("the question is malformed")
	errReply    = errors.New("the answer of the member is malformed")
)

// parseQuestion reads a question.
func parseQuestion(text []byte) (*question, error) {
	var q question
	if err := strictly(text, &q); err != nil {
		return nil, errQuestion // err may quote a value
	}
	good := len(q.Value) <= maxValue && len(q.Shelf) <= maxName
	switch q.Do {
	case doChanges:
		good = good && q.Name == ""
	case doStore:
		good = good && validKey(q.Name)
	case doDelete:
		good = good && validKey(q.Name) && len(q.Value) == 0
	case doLock, doUnlock:
		good = good && validLock(q.Name)
	default:
		good = false
	}
	if !good {
		return nil, errQuestion
	}
	return &q, nil
}

// parseReply reads an answer.
func parseReply(text []byte) (*reply, error) {
	var r reply
	if err := strictly(text, &r); err != nil || len(r.Records) > maxRecords || len(r.Held) > maxHeld || len(r.Shelf) > maxName {
		return nil, errReply // err may quote a value
	}
	for i := range r.Records {
		if r.Records[i].check() != nil {
			return nil, errReply
		}
	}
	if slices.ContainsFunc(r.Held, func(name string) bool { return !validLock(name) }) {
		return nil, errReply
	}
	return &r, nil
}

// strictly reads one JSON value and nothing after it.
func strictly(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(v); err != nil {
		return err
	}
	if dec.More() {
		return errQuestion
	}
	return nil
}

var errNobody = errors.New("no member keeps certificates now")

// ask asks a member.
func (k *keeper) ask(ctx context.Context, id string, q *question) (*reply, error) {
	if id == "" {
		return nil, errNobody
	}
	text, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("writing a question: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	answer, err := k.members.Ask(ctx, id, text)
	if err != nil {
		return nil, err
	}
	r, err := parseReply(answer)
	if err == nil && r.Elsewhere {
		err = errNotKeeper
	}
	return r, err
}

// maxPages bounds the answers that make one pull.
const maxPages = 2 * maxBytes / maxPage

// pull takes what is new from a member's shelf. held are the locks that it holds.
func (k *keeper) pull(ctx context.Context, id string) (held []string, err error) {
	for range maxPages {
		k.mu.Lock()
		at := k.places[id]
		k.mu.Unlock()
		got, err := k.ask(ctx, id, &question{Do: doChanges, Shelf: at.shelf, After: at.after})
		if err != nil {
			return nil, err
		}
		for i := range got.Records {
			if err := k.shelf.put(&got.Records[i]); err != nil {
				return nil, err
			}
		}
		k.mu.Lock()
		k.places[id] = place{got.Shelf, got.After}
		k.mu.Unlock()
		if !got.More {
			return got.Held, nil
		}
	}
	return nil, errReply
}

// pullWidth is how many members are asked at a time.
const pullWidth = 16

// pullAll takes what is new from all others. It returns the locks that each holds. Those that
// do not answer are left out: what they have comes later.
func (k *keeper) pullAll(ctx context.Context) map[string][]string {
	var mu sync.Mutex
	var wg sync.WaitGroup
	held, width := map[string][]string{}, make(chan struct{}, pullWidth)
	others := k.members.Others()
	for _, id := range others {
		width <- struct{}{}
		wg.Go(func() {
			defer func() { <-width }()
			names, err := k.pull(ctx, id)
			if err != nil {
				k.log.DebugContext(ctx, "certificates of a member not taken", "peer", id, "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			held[id] = names
		})
	}
	wg.Wait()
	k.forget(others)
	return held
}

// forget forgets the places of members that are gone.
func (k *keeper) forget(others []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.places {
		if !slices.Contains(others, id) {
			delete(k.places, id)
		}
	}
}

// sync takes what is new: from the keeper, or as the keeper from all others.
func (k *keeper) sync(ctx context.Context) {
	if k.members == nil {
		return
	}
	if err := k.fetch(ctx); err != nil {
		k.log.DebugContext(ctx, "certificates of the cluster not taken", "error", err)
		return
	}
	if k.keeps() {
		k.pullAll(ctx)
	}
}
