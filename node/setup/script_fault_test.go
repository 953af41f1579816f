package setup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// failing makes a folder of programs for PATH, of which one fails, by that shell command, where its last
// argument ends so.
func failing(t *testing.T, program, suffix, by string) string {
	t.Helper()
	dir := tools(t, "jq")
	at := filepath.Join(dir, program)
	is, err := os.Readlink(at)
	if err != nil {
		t.Fatal(err)
	}
	text := "#!/bin/sh\nfor last; do :; done\ncase $last in *" + suffix + ") " + by + " ;; esac\nexec " + is + " \"$@\"\n"
	if err := errors.Join(os.Remove(at), os.WriteFile(at, []byte(text), 0o700)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// other is plain for another proxy.
func other(t *testing.T) Options {
	t.Helper()
	proxy, err := ParseEndpoint("http://other.example:81")
	if err != nil {
		t.Fatal(err)
	}
	return Options{Proxy: proxy}
}

// A disk that is full half-way, or somebody who stops the script, leaves everything as it was, and what
// can be undone too.
func TestScriptAllOrNothing(t *testing.T) {
	t.Parallel()
	const full = "echo 'no space left on device' >&2; exit 1"
	for _, c := range []struct{ program, suffix, by string }{
		{"mv", "/daemon.json", full},
		{"mv", "/hosts.toml", full},
		{"mv", "/daemon.json", "kill $PPID"},
		{"mv", "/oci-proxy-setup.old", full},
		{"cp", "/oci-proxy-setup.part", "mkdir -p $last/after; " + full},
		{"cat", "/new/etc/docker/daemon.json", full},
		{"cat", "/new/etc/docker/certs.d/_default/hosts.toml", full},
		{"mkdir", "/certs.d/_default", full},
	} {
		for _, again := range []bool{false, true} {
			_, root := tree(t, map[string]string{"etc/docker/daemon.json": "{\"a\":1}"})
			was := seen(t, root)
			before := was
			if again {
				if out, err := runs(t, []string{"sh"}, planned(t, "docker", plain()), "", "-root", root); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				before = seen(t, root)
			} else if strings.Contains(c.suffix, recordName) {
				continue // there is no record yet
			}
			p := planned(t, "docker", other(t))
			out, err := runs(t, []string{"/bin/sh"}, p, failing(t, c.program, c.suffix, c.by), "-root", root)
			switch {
			case strings.Contains(c.suffix, "_default") && again: // the folder is there: that is no fault of this run
			case err == nil:
				t.Errorf("%v, again %v: no error\n%s", c, again, out)
			case seen(t, root) != before:
				t.Errorf("%v, again %v: left is\n%s\nwas\n%s\n%s", c, again, seen(t, root), before, out)
			}
			if out, err = runs(t, []string{"sh"}, p, "", "-undo", "-root", root); err != nil || seen(t, root) != was {
				t.Errorf("%v, again %v, undone: %v\n%s\nleft is\n%s", c, again, err, out, seen(t, root))
			}
		}
	}
}

// What is undone half-way can be undone, to the byte.
func TestScriptUndoesAgain(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"/hosts.toml", "/daemon.json"} {
		for _, program := range []string{"mv", "rm"} {
			_, root := tree(t, map[string]string{"etc/docker/daemon.json": "{\"a\":1}"})
			was := seen(t, root)
			p := planned(t, "docker", plain())
			if out, err := runs(t, []string{"sh"}, p, "", "-root", root); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			out, _ := runs(t, []string{"/bin/sh"}, p, failing(t, program, suffix, "exit 1"), "-undo", "-root", root)
			if strings.Contains(seen(t, root), ".json.oci-proxy-setup") {
				t.Errorf("%s %s leaves\n%s", program, suffix, seen(t, root))
			}
			if more, err := runs(t, []string{"sh"}, p, "", "-undo", "-root", root); err != nil || seen(t, root) != was {
				t.Errorf("%s %s: %v\n%s%s\nleft is\n%s", program, suffix, err, out, more, seen(t, root))
			}
		}
	}
}

// Users may read what root sets up, whatever root's umask is: podman reads it as them.
func TestScriptMakesFoldersForAll(t *testing.T) {
	t.Parallel()
	_, root := tree(t, nil)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `umask 077; exec sh -s -- -root "$0"`, root)
	cmd.Stdin = strings.NewReader(string(planned(t, "podman", plain()).Script()))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"etc/containers/registries.conf.d", "etc/containers/registries.conf.d/oci-proxy.conf"} {
		if info, err := os.Stat(filepath.Join(root, name)); err != nil || info.Mode().Perm()&0o044 != 0o044 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if info, err := os.Stat(filepath.Join(root, "etc/containers", recordName)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the record: %v, %v", info.Mode(), err)
	}
}

// What setup has made where a link leads goes, and the link stays.
func TestScriptUndoesBehindALink(t *testing.T) {
	t.Parallel()
	_, root := tree(t, map[string]string{"opt/x": ""})
	at, to := filepath.Join(root, "etc/docker/daemon.json"), filepath.Join(root, "opt/daemon.json")
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o750), os.Symlink(to, at)); err != nil {
		t.Fatal(err)
	}
	was := seen(t, root)
	for _, args := range []string{"", "-undo"} {
		cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-s", "--"}, strings.Fields(args)...)...)
		cmd.Stdin = strings.NewReader(scriptBelow(t, root))
		out, err := cmd.CombinedOutput()
		if _, there := os.Stat(to); err != nil || (there == nil) != (args == "") {
			t.Errorf("%q: %v, %v\n%s", args, err, there, out)
		}
	}
	if seen(t, root) != was {
		t.Errorf("left is\n%s\nwas\n%s", seen(t, root), was)
	}
}
