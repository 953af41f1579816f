package membership

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The files in Config.Dir.
const (
	idFile      = "node-id"
	epochFile   = "epoch"
	membersFile = "members.json"
)

// maxEpoch is far beyond any clock's seconds: a larger number on disk is damage.
const maxEpoch = 1 << 40

// An identity is this node's id and the number of this start.
type identity struct {
	id    string
	epoch uint64
}

// identify reads the identity saved in dir, or makes one and saves it. The identity
// is good in any case; an error says why it was not saved.
func identify(dir string, now time.Time) (identity, error) {
	fresh := identity{newID(), epochAfter(0, now)}
	if dir == "" {
		return fresh, errors.New("there is no directory for it")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fresh, fmt.Errorf("making the directory: %w", err)
	}
	id, err := readID(dir)
	if errors.Is(err, fs.ErrNotExist) {
		id, err = fresh.id, fresh.saveID(dir)
	}
	if err != nil {
		return fresh, fmt.Errorf("saving the id: %w", err)
	}
	who := identity{id, epochAfter(readEpoch(dir), now)}
	return who, who.saveEpoch(dir)
}

// save saves the identity in dir.
func (w identity) save(dir string) error {
	if dir == "" {
		return errors.New("there is no directory for it")
	}
	return errors.Join(w.saveID(dir), w.saveEpoch(dir))
}

func (w identity) saveID(dir string) error {
	if err := replace(dir, idFile, []byte(w.id+"\n")); err != nil {
		return fmt.Errorf("saving the id: %w", err)
	}
	return nil
}

func (w identity) saveEpoch(dir string) error {
	if err := replace(dir, epochFile, []byte(strconv.FormatUint(w.epoch, 10)+"\n")); err != nil {
		return fmt.Errorf("saving the epoch: %w", err)
	}
	return nil
}

func newID() string {
	var b [idSize]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// readID reads the id. A damaged file counts as missing, so it is replaced; else
// this node would have a new id at each start.
func readID(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, idFile))
	if err != nil {
		return "", err
	}
	if id := strings.TrimSpace(string(b)); validID(id) {
		return id, nil
	}
	return "", fs.ErrNotExist
}

// readEpoch returns the last epoch, or 0 if it is unknown: then the clock will do.
func readEpoch(dir string) uint64 {
	b, err := os.ReadFile(filepath.Join(dir, epochFile))
	if err != nil {
		return 0
	}
	epoch, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || epoch > maxEpoch {
		return 0
	}
	return epoch
}

// epochAfter returns an epoch that grows even if the clock goes back or the file
// is lost.
func epochAfter(last uint64, now time.Time) uint64 { return max(last+1, uint64(max(now.Unix(), 1))) }

// replace writes the file whole or not at all.
func replace(dir, name string, b []byte) (err error) {
	f, err := os.CreateTemp(dir, name+".*.tmp") // with mode 0600
	if err != nil {
		return err
	}
	renamed := false
	defer func() {
		if err != nil && !renamed {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync() // an empty id after a power cut would make this a new node
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	renamed = true
	return syncDir(dir)
}

// syncDir makes a rename in the directory survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // this file system can't
	}
	return errors.Join(err, d.Close())
}
