package certs

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// A storage is the shelf as certmagic sees it. Reading first takes what is new from the keeper,
// and does with this node's own copy if the keeper does not answer.
type storage struct{ keeper *keeper }

var _ certmagic.Storage = storage{}

// Store implements certmagic.Storage.
func (s storage) Store(ctx context.Context, key string, value []byte) error {
	if err := s.keeper.write(ctx, record{Key: key, Value: value}); err != nil {
		return fmt.Errorf("keeping %s: %w", key, err)
	}
	return nil
}

// Load implements certmagic.Storage.
func (s storage) Load(ctx context.Context, key string) ([]byte, error) {
	s.fresh(ctx)
	if value, ok := s.keeper.shelf.get(key); ok {
		return value, nil
	}
	return nil, missing(key)
}

// fresh takes what is new from the keeper.
func (s storage) fresh(ctx context.Context) {
	if err := s.keeper.fetch(ctx); err != nil {
		s.keeper.log.DebugContext(ctx, "certificates of the cluster not taken", "error", err)
	}
}

// Delete implements certmagic.Storage.
func (s storage) Delete(ctx context.Context, key string) error {
	s.fresh(ctx)
	for _, one := range s.keeper.shelf.under(key) {
		if err := s.keeper.write(ctx, record{Key: one.Key, Gone: true}); err != nil {
			return fmt.Errorf("deleting %s: %w", one.Key, err)
		}
	}
	if _, ok := s.keeper.shelf.get(key); !ok {
		return nil
	}
	if err := s.keeper.write(ctx, record{Key: key, Gone: true}); err != nil {
		return fmt.Errorf("deleting %s: %w", key, err)
	}
	return nil
}

// Exists implements certmagic.Storage.
func (s storage) Exists(ctx context.Context, key string) bool {
	s.fresh(ctx)
	_, ok := s.keeper.shelf.get(key)
	return ok || len(s.keeper.shelf.under(key)) > 0
}

// List implements certmagic.Storage. Folders are listed too, as certmagic's own storage does.
func (s storage) List(ctx context.Context, folder string, recursive bool) (keys []string, err error) {
	s.fresh(ctx)
	folder = strings.Trim(folder, "/")
	for _, one := range s.keeper.shelf.under(folder) {
		prefix := ""
		if folder != "" {
			prefix = folder + "/"
		}
		parts := strings.Split(strings.TrimPrefix(one.Key, prefix), "/")
		for i := range parts {
			key := prefix + strings.Join(parts[:i+1], "/")
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
			if !recursive {
				break
			}
		}
	}
	if len(keys) == 0 {
		return nil, missing(folder)
	}
	return keys, nil
}

// Stat implements certmagic.Storage. Nobody knows when a key was written: the time is its
// version, so that later ones are later.
func (s storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	s.fresh(ctx)
	info := certmagic.KeyInfo{Key: key}
	if one, ok := s.keeper.shelf.record(key); ok {
		info.Modified, info.Size, info.IsTerminal = time.Unix(int64(one.Version%maxVersion), 0), int64(len(one.Value)), true
		return info, nil
	}
	if len(s.keeper.shelf.under(key)) == 0 {
		return info, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	}
	return info, nil
}

// Lock implements certmagic.Storage. It waits until ctx ends, or for patience if the keeper
// does not answer.
func (s storage) Lock(ctx context.Context, name string) error {
	if !validLock(name) {
		return errQuestion
	}
	if err := s.keeper.held.take(ctx, name); err != nil {
		return fmt.Errorf("waiting for the lock %s: %w", name, err)
	}
	if err := s.keeper.lock(ctx, name); err != nil {
		s.keeper.held.free(name)
		return fmt.Errorf("getting the lock %s: %w", name, err)
	}
	return nil
}

// Unlock implements certmagic.Storage.
func (s storage) Unlock(ctx context.Context, name string) error { return s.keeper.unlock(ctx, name) }
