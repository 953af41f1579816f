package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"
)

// Two small commands for pods of Kubernetes. The image has no shell, and machines without a way to
// a registry have no other image.

// own gives a directory to a user, as the init container of deploy/chart does with a folder of the
// machine: the kubelet makes it for root. What lies in the directory is left alone.
func own(_ context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("own", flag.ContinueOnError)
	if err := parseFlags(fl, args, s); err != nil {
		return err
	}
	if fl.NArg() != 2 {
		return badUsage(s, "oci-proxy own: give a directory and the number of a user, as in: oci-proxy own /var/lib/oci-proxy 65532")
	}
	user, err := strconv.ParseUint(fl.Arg(1), 10, 31)
	if err != nil {
		return badUsage(s, "oci-proxy own: %q is not the number of a user", fl.Arg(1))
	}
	return giveTo(fl.Arg(0), int(user))
}

// giveTo closes a directory to all but a user, and gives it to that user and the group of the same
// number. It does nothing if the user has it.
func giveTo(dir string, user int) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("looking at the directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == user {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening the directory: %w", err)
	}
	defer func() { _ = root.Close() }() // nothing was written
	if held, err := fs.ReadDir(root.FS(), "."); err != nil || slices.ContainsFunc(held, func(e fs.DirEntry) bool { return e.Name() != "lost+found" }) {
		return errors.Join(fmt.Errorf("%s is not empty and not user %d's: name a folder of its own for the cache", dir, user), err)
	}
	// In this order: afterwards it is not ours to close.
	if err := root.Chmod(".", 0o700); err != nil {
		return fmt.Errorf("closing %s to others: %w", dir, err)
	}
	if err := root.Chown(".", user, user); err != nil {
		return fmt.Errorf("giving %s to user %d, which takes root's right to (CAP_CHOWN): %w", dir, user, err)
	}
	return nil
}

// hold waits until it is told to end. It keeps a pod alive whose work is done by its init
// containers and its hooks.
func hold(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("hold", flag.ContinueOnError)
	if err := parse(fl, args, s); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
