package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// secretBytes is how many random bytes a cluster's secret is made of.
const secretBytes = 32

// secret makes a secret for a cluster. It prints it, or writes it to a file that only the
// owner may read. A file that has something in it is kept, so that each start of a
// cluster may run this command.
func secret(_ context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("secret", flag.ContinueOnError)
	file := fl.String("o", "", "the `file` to make, unless it has a secret already")
	if err := parse(fl, args, s); err != nil {
		return err
	}
	random := make([]byte, secretBytes)
	_, _ = rand.Read(random) // it never fails
	text := hex.EncodeToString(random)
	if *file == "" {
		fmt.Fprintln(s.out, text)
		return nil
	}
	if info, err := os.Stat(*file); err == nil && info.Size() > 0 {
		fmt.Fprintf(s.out, "%s is kept: it has a secret\n", *file)
		return nil
	}
	if err := writeSecret(*file, text); err != nil {
		return fmt.Errorf("writing the secret to %s: %w", *file, err)
	}
	fmt.Fprintf(s.out, "%s has a new secret\n", *file)
	return nil
}

// writeSecret writes a file with mode 0600. It is whole, or not there.
func writeSecret(file, text string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), ".secret-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
