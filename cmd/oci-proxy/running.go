package main

import (
	"bytes"
	"cmp"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"oci-proxy/node/config"
)

// A launch is how a node on this machine was started.
type launch struct {
	file    string // its config, "" for none
	port    int    // of its -port, 0 for none
	environ []string
}

// packagedConfig is where the packages put the config of the node that runs as a service of
// its own user.
const packagedConfig = "/etc/oci-proxy/config.yaml"

// configPath returns the config file of a command: that of its -c, or else the one that
// the environment names.
func configPath(flagged string) string {
	return cmp.Or(flagged, os.Getenv(config.FileVariable))
}

// ownNode returns the config of the node that runs here, as it runs: with the port of its
// -port. file is the caller's -c. Without one it is the only node that runs here, if the
// system tells of it (Linux does), or else the one that the environment describes, or else
// that of the package.
func ownNode(file string, s streams) (*config.Config, error) {
	var here []launch
	for _, l := range launches() {
		if file == "" || sameFile(l.file, file) {
			here = append(here, l)
		}
	}
	if len(here) != 1 {
		path := configPath(file)
		if _, err := os.Stat(packagedConfig); path == "" && err == nil {
			path = packagedConfig
		}
		return find(path, os.Environ(), s)
	}
	// What the caller sets goes before what the node was started with.
	cfg, err := find(here[0].file, append(here[0].environ, os.Environ()...), s)
	if err == nil {
		cfg.Port = cmp.Or(here[0].port, cfg.Port)
	}
	return cfg, err
}

// sameFile reports whether two paths lead to one file.
func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// launches returns the nodes that this user runs here, from this very program, in this
// container or outside of any. Where there is no /proc it returns none.
func launches() (all []launch) {
	dirs, err := filepath.Glob("/proc/[1-9]*")
	if err != nil {
		return nil // the pattern is right
	}
	for _, dir := range dirs {
		if dir == "/proc/"+strconv.Itoa(os.Getpid()) || !likeOurs(dir) {
			continue
		}
		if l, ok := launchOf(dir); ok {
			all = append(all, l)
		}
	}
	return all
}

// likeOurs reports whether a process runs this program, as this user and where this one
// runs. Links that can't be read are another user's.
func likeOurs(dir string) bool {
	for _, link := range []string{"/exe", "/ns/net", "/ns/mnt"} {
		theirs, err := os.Readlink(dir + link)
		ours, err2 := os.Readlink("/proc/self" + link)
		if err != nil || err2 != nil || unreplaced(theirs) != unreplaced(ours) {
			return false
		}
	}
	return sameOwner(dir, "/proc/self")
}

// unreplaced returns a program's path as it was before an upgrade removed it.
func unreplaced(exe string) string { return strings.TrimSuffix(exe, " (deleted)") }

// launchOf reads how the process was started. It reports false if that was not as a node.
func launchOf(dir string) (launch, bool) {
	line, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return launch{}, false
	}
	args := strings.Split(string(bytes.TrimSuffix(line, []byte{0})), "\x00")[1:]
	name, args := commandOf(args)
	fl := flag.NewFlagSet(name, flag.ContinueOnError)
	fl.SetOutput(io.Discard)
	file, port := serveFlags(fl)
	if name != "serve" || fl.Parse(args) != nil {
		return launch{}, false
	}
	environ, err := os.ReadFile(dir + "/environ")
	if err != nil {
		return launch{}, false
	}
	l := launch{file: *file, port: *port, environ: strings.Split(string(bytes.TrimSuffix(environ, []byte{0})), "\x00")}
	for _, e := range l.environ {
		if named, ok := strings.CutPrefix(e, config.FileVariable+"="); ok && l.file == "" {
			l.file = named
		}
	}
	if at, err := os.Readlink(dir + "/cwd"); err == nil && l.file != "" && !filepath.IsAbs(l.file) {
		l.file = filepath.Join(at, l.file)
	}
	return l, true
}

// sameOwner reports whether two files belong to one user.
func sameOwner(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	if errX != nil || errY != nil {
		return false
	}
	of, ok := x.Sys().(*syscall.Stat_t)
	ours, ok2 := y.Sys().(*syscall.Stat_t)
	return ok && ok2 && of.Uid == ours.Uid
}
