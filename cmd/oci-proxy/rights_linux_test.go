package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// stranger is the user that the image's node runs as.
const stranger = 65532

// A cache directory that the node has no right to use makes it degraded. The log and
// /_/health say whose the directory is, as whom the node runs, and what to do; done
// that, the node caches.
func TestCacheDirectoryOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run a process as another user")
	}
	exe := forAll(t)
	for name, c := range map[string]struct {
		lay  string // makes the directory $D, as root
		uid  uint32
		want string // what is said of it, D stands for the directory
	}{
		"a bind mount that root owns":        {"mkdir $D", stranger, "D belongs to uid 0, and this node runs as uid 65532"},
		"one that others may read":           {"mkdir -p $D/blobs && chmod 755 $D", stranger, "D belongs to uid 0, and this node runs as uid 65532"},
		"one of a third user":                {"mkdir $D && chown 1000:1000 $D", stranger, "D belongs to uid 1000, and this node runs as uid 65532"},
		"a name with a space":                {"mkdir $D", stranger, "D belongs to uid 0"},
		"root's lock in our directory":       {"mkdir $D && touch $D/lock && chmod 600 $D/lock && chown 65532 $D", stranger, "D/lock belongs to uid 0"},
		"root's blobs in our directory":      {"mkdir -p $D/blobs/sha256 && chown 65532 $D", stranger, "D/blobs belongs to uid 0"},
		"another's lock, seen by root":       {"mkdir $D && touch $D/lock && chown 65532 $D/lock", 0, "D/lock belongs to uid 65532, and this node runs as uid 0"},
		"no directory, and none to make":     {"true", stranger, "D does not exist, and "},
		"our directory, closed to ourselves": {"mkdir $D && chown 65532 $D && chmod 0 $D", stranger, "the directory has mode 0000 and belongs to uid 65532"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := open(t) + "/cache"
			if strings.Contains(name, "space") {
				dir += " of mine"
			}
			sh(t, strings.ReplaceAll(c.lay, "$D", fmt.Sprintf("%q", dir)))
			reason := healthAs(t, exe, dir, c.uid)
			if !strings.Contains(reason, strings.Replace(c.want, "D", dir, 1)) {
				t.Errorf("the reason is\n%s", reason)
			}
			do := regexp.MustCompile(`(mkdir -p|chown -R|chmod -R) .*$`).FindString(reason)
			if do == "" {
				t.Fatalf("no command in %s", reason)
			}
			do, _, _ = strings.Cut(do, ", or ")
			sh(t, do)
			if reason := healthAs(t, exe, dir, c.uid); reason != "" {
				t.Errorf("after %s: %s", do, reason)
			}
		})
	}
}

// forAll copies this test's binary to where every user may run it, and returns its path.
// Another process does the copying: a program that one of ours has open for writing, or a
// child that it just forked, can't be run.
func forAll(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	to := open(t) + "/oci-proxy"
	if out, err := exec.Command("install", "-m", "755", exe, to).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return to
}

// open returns a directory of root's that every user may enter.
func open(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil { // of the test's own
			t.Fatal(err)
		}
	}
	return dir
}

// sh runs a command of the shell.
func sh(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// healthAs runs a node as that user and returns the reason for which it is degraded, ""
// if it is not. The log has the same reason.
func healthAs(t *testing.T, exe, dir string, uid uint32) string {
	t.Helper()
	port := freePort(t)
	cmd := exec.Command(exe, "serve")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	cmd.Env = []string{
		asProgram + "=1", fmt.Sprintf("OCI_PROXY_PORT=%d", port), "OCI_PROXY_ADDRESS=127.0.0.1",
		"OCI_PROXY_DEFAULTS__CACHE_DIR=" + dir,
	}
	p := startAs(t, fmt.Sprintf("127.0.0.1:%d", port), cmd)
	defer p.end(syscall.SIGTERM)
	body, err := get(t.Context(), "http://"+p.addr+"/_/health")
	if err != nil {
		t.Fatal(err)
	}
	var state struct {
		Status  string
		Reasons []string
	}
	if err := json.Unmarshal(body, &state); err != nil {
		t.Fatal(err)
	}
	if len(state.Reasons) == 0 {
		return ""
	}
	reason := strings.Join(state.Reasons, "\n")
	told := strings.Trim(strconv.Quote(strings.TrimPrefix(reason, "cache_dir: "+dir+": ")), `"`)
	if state.Status != "degraded" || !strings.Contains(p.log.String(), told) {
		t.Errorf("status %s, the log is\n%s", state.Status, p.log.String())
	}
	return reason
}
