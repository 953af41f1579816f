package certs

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// suffix is that of a record's file. Its name is the key's hash: keys are longer than some file
// systems allow.
const suffix = ".json"

// maxFile bounds a record's file, in bytes.
const maxFile = 2*maxValue + 4<<10

// openFolder makes the folder, and narrows it to its owner.
func openFolder(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("making the folder for certificates: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err == nil {
		err = errors.Join(root.Chmod(".", 0o700), root.Close())
	}
	if err != nil {
		return fmt.Errorf("narrowing the folder for certificates to its owner: %w", err)
	}
	return nil
}

// readFolder reads all records. Those that can be read are returned with an error, too.
func readFolder(folder string) (records []record, err error) {
	if err := openFolder(folder); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("listing certificates: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), suffix) {
			continue // a file that was not finished
		}
		r, err := readRecord(filepath.Join(folder, e.Name()))
		if err != nil {
			errs = append(errs, err)
		} else {
			records = append(records, r)
		}
	}
	return records, errors.Join(errs...)
}

// readRecord reads one record.
func readRecord(file string) (r record, err error) {
	f, err := os.Open(file)
	if err != nil {
		return r, fmt.Errorf("reading a certificate's file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil {
		err = r.check()
	}
	if err != nil { // of json it may quote what it read
		return record{}, fmt.Errorf("reading a certificate's file: %s is damaged: remove it", file)
	}
	return r, nil
}

// saveRecord writes one record.
func saveRecord(folder string, r *record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing a certificate's file: %w", err)
	}
	return replace(folder, fmt.Sprintf("%x", sha256.Sum256([]byte(r.Key)))+suffix, text)
}

// replace writes a file of the folder that its owner alone may read. After a power cut it has
// the old content or the new.
func replace(folder, name string, text []byte) error {
	if err := openFolder(folder); err != nil {
		return err
	}
	f, err := os.CreateTemp(folder, "new-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("writing a certificate's file: %w", err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(folder, name))
	}
	if err != nil {
		return fmt.Errorf("writing a certificate's file: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
