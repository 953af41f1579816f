package certs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"oci-proxy/transfer/wait"
)

// A keeper is this node's part in keeping the shelves of all members the same: the keeper's, if
// it is that by now, or that of one who asks it.
type keeper struct {
	shelf   *shelf
	log     *slog.Logger
	life    *wait.Life
	members Members // nil for a node on its own
	leases  leases
	held    holds
	taking  *wait.Calls[struct{}, struct{}]

	mu     sync.Mutex // guards the fields below; never held during I/O
	heard  bool       // this node is the keeper, and has heard the others since it is
	places map[string]place
}

// A place is how far this node has read the shelf of another.
type place struct {
	shelf string
	after uint64
}

func newKeeper(s *shelf, life *wait.Life, log *slog.Logger) *keeper {
	return &keeper{shelf: s, log: log, life: life, taking: wait.NewCalls[struct{}, struct{}](life, askTime+stepTime), places: map[string]place{}}
}

// join makes the node one of those members.
func (k *keeper) join(members Members) { k.members = members }

// self is this node's id, "" for a node on its own.
func (k *keeper) self() string {
	if k.members == nil {
		return ""
	}
	return k.members.Self()
}

// keeps reports whether this node is the keeper by now. One that is not forgets what it knew as
// the keeper.
func (k *keeper) keeps() bool {
	if k.members == nil || k.members.Keeper() == k.members.Self() {
		return true
	}
	k.mu.Lock()
	k.heard = false
	k.mu.Unlock()
	k.leases.clear()
	return false
}

var errNotKeeper = errors.New("another member keeps the certificates by now")

// ready returns once this node may answer as the keeper: it has heard what the others that
// answer have, and which locks they hold.
func (k *keeper) ready(ctx context.Context) error {
	if !k.keeps() {
		return errNotKeeper
	}
	k.mu.Lock()
	heard := k.heard
	k.mu.Unlock()
	if k.members == nil || heard {
		return nil
	}
	_, _, err := k.taking.Do(ctx, struct{}{}, func(ctx context.Context) (struct{}, error) { return struct{}{}, k.takeOver(ctx) })
	return err
}

// takeOver hears the others.
func (k *keeper) takeOver(ctx context.Context) error {
	for id, names := range k.pullAll(ctx) {
		for _, name := range names {
			k.leases.lend(name, id, time.Now())
		}
	}
	for _, name := range k.held.list() {
		k.leases.lend(name, k.self(), time.Now())
	}
	k.mu.Lock()
	k.heard = true
	k.mu.Unlock()
	if !k.keeps() {
		return errNotKeeper
	}
	k.log.Debug("this node keeps the certificates of the cluster")
	return nil
}

// answer answers what a member asks.
func (k *keeper) answer(ctx context.Context, sender string, q *question) (*reply, error) {
	if q.Do == doChanges {
		return k.changes(q), nil
	}
	err := k.ready(ctx)
	if errors.Is(err, errNotKeeper) {
		return &reply{Elsewhere: true}, nil
	}
	if err != nil {
		return nil, err
	}
	switch q.Do {
	case doLock:
		return &reply{Lent: k.leases.lend(q.Name, sender, time.Now())}, nil
	case doUnlock:
		k.leases.back(q.Name, sender)
		return &reply{}, nil
	default:
		k.shelf.raise(q.After)
		r, err := k.shelf.write(record{Key: q.Name, Gone: q.Do == doDelete, Value: q.Value}, k.self())
		if err != nil {
			return nil, err
		}
		r.Value = nil // the sender has it
		return &reply{Records: []record{r}}, nil
	}
}

// changes are what came to this shelf since the sender has looked.
func (k *keeper) changes(q *question) *reply {
	after := q.After
	if q.Shelf != k.shelf.id {
		after = 0
	}
	out := &reply{Shelf: k.shelf.id, Held: k.held.list()}
	out.Records, out.After, out.More = k.shelf.after(after, maxPage)
	return out
}

// write keeps a record on the keeper's shelf and on this node's. If it reaches no keeper in
// time, or ctx ends, it keeps it on this node's alone: others find it there.
func (k *keeper) write(ctx context.Context, r record) error {
	if err := (&record{Key: r.Key, Version: 1, Gone: r.Gone, Value: r.Value}).check(); err != nil {
		return err
	}
	trying, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := k.writeOnce(trying, r)
		if err == nil || errors.Is(err, errFull) {
			return err
		}
		if wait.For(trying, stepTime) != nil {
			k.log.Warn("certificate kept on this node alone for now: the member that keeps them for all does not answer", "error", err)
			_, err = k.shelf.write(r, k.self())
			return err
		}
	}
}

// writeOnce tries to keep a record on the keeper's shelf, and then on this node's.
func (k *keeper) writeOnce(ctx context.Context, r record) error {
	if k.keeps() {
		if err := k.ready(ctx); err != nil {
			return err
		}
		_, err := k.shelf.write(r, k.self())
		return err
	}
	do := doStore
	if r.Gone {
		do = doDelete
	}
	got, err := k.ask(ctx, k.members.Keeper(), &question{Do: do, Name: r.Key, Value: r.Value, After: k.shelf.highest()})
	if err != nil {
		return err
	}
	if len(got.Records) != 1 || got.Records[0].Key != r.Key {
		return errRecord
	}
	r.Version, r.By = got.Records[0].Version, got.Records[0].By
	return k.shelf.put(&r)
}

// fetch takes what is new from the keeper.
func (k *keeper) fetch(ctx context.Context) error {
	if k.keeps() {
		return k.ready(ctx)
	}
	_, err := k.pull(ctx, k.members.Keeper())
	return err
}

// lend asks the keeper for a lock, and reports whether this node has it.
func (k *keeper) lend(ctx context.Context, name string) (bool, error) {
	if k.keeps() {
		if err := k.ready(ctx); err != nil {
			return false, err
		}
		return k.leases.lend(name, k.self(), time.Now()), nil
	}
	got, err := k.ask(ctx, k.members.Keeper(), &question{Do: doLock, Name: name})
	if err != nil {
		return false, err
	}
	return got.Lent, nil
}

// back gives a lock back. One that does not come back ends by itself.
func (k *keeper) back(ctx context.Context, name string) error {
	if k.keeps() {
		k.leases.back(name, k.self())
		return nil
	}
	if _, err := k.ask(ctx, k.members.Keeper(), &question{Do: doUnlock, Name: name}); err != nil {
		return fmt.Errorf("giving back a lock: %w", err)
	}
	return nil
}
