package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// withRemedy adds to an error about rights whose the cache directory is, as whom we
// run and what to do. It returns any other error as it is.
func withRemedy(dir string, err error) error {
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errForeign) {
		return err
	}
	return fmt.Errorf("%w: %s", err, remedy(dir))
}

// remedy says why this process has no right to use the directory, and what to do.
func remedy(dir string) string {
	uid, gid := os.Geteuid(), os.Getegid()
	there, where := forShell(dir), ""
	if path, device := onHost(dir); path != "" {
		there, where = forShell(path), fmt.Sprintf(" on the host (that is where %s lies on its disk %s)", dir, device)
	}
	give := fmt.Sprintf("chown -R %d:%d %s%s", hostID("uid", uid), hostID("gid", gid), there, where)
	place, owner, hidden := nearest(dir)
	switch {
	case hidden:
		return fmt.Sprintf("%s belongs to uid %d and does not let uid %d in, as which this node runs: choose a cache_dir elsewhere", place, owner.Uid, uid)
	case place != dir && int(owner.Uid) != uid:
		return fmt.Sprintf("%s does not exist, and %s belongs to uid %d while this node runs as uid %d: mkdir -p %s && %s", dir, place, owner.Uid, uid, there, give)
	case place != dir:
		return fmt.Sprintf("%s does not exist, and %s has mode %04o: chmod u+rwx %s", dir, place, owner.Mode&0o7777, forShell(place))
	}
	if name, of, foreign := foreigner(dir, uint32(uid)); foreign {
		return fmt.Sprintf("%s belongs to uid %d, and this node runs as uid %d: make sure that no other process uses the directory, then %s", name, of, uid, give)
	}
	return fmt.Sprintf("the directory has mode %04o and belongs to uid %d, as which this node runs: chmod -R u+rwX %s%s, or look at the mount's options", owner.Mode&0o7777, uid, there, where)
}

// nearest returns the directory, or the nearest above it that can be seen. hidden
// says that it keeps us from looking into it.
func nearest(dir string) (place string, owner unix.Stat_t, hidden bool) {
	for place = filepath.Clean(dir); ; place = filepath.Dir(place) {
		err := unix.Lstat(place, &owner)
		if err == nil || place == filepath.Dir(place) {
			return place, owner, hidden
		}
		hidden = errors.Is(err, fs.ErrPermission)
	}
}

// foreigner returns the first of the directory and of what the store needs in it that
// belongs to another user.
func foreigner(dir string, uid uint32) (name string, owner uint32, found bool) {
	names := append([]string{".", "lock"}, directories...)
	if below, err := filepath.Glob(filepath.Join(escaped(dir), "blobs", "sha*", "??")); err == nil {
		for _, path := range below {
			names = append(names, strings.TrimPrefix(path, filepath.Clean(dir)))
		}
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil && st.Uid != uid {
			return path, st.Uid, true
		}
	}
	return "", 0, false
}

// escaped returns the name of a directory as a pattern that matches it alone.
func escaped(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// plain matches what a shell takes as it is.
var plain = regexp.MustCompile(`^[A-Za-z0-9_./:@+-]+$`)

// forShell returns a path as a shell takes it.
func forShell(path string) string {
	if plain.MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// usable checks that we may make, read and remove files in a directory.
func (r *root) usable(name string) error {
	if err := r.try("access", name); err != nil {
		return err
	}
	var err error
	if closed := r.conn.Control(func(dir uintptr) {
		err = unix.Faccessat(int(dir), name, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}); closed != nil {
		return fmt.Errorf("access %s: %w", name, os.ErrClosed)
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return &fs.PathError{Op: "access", Path: name, Err: err}
	}
	return nil // a file system that can't tell will show it
}
