package setup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Who looked before another wrote changes nothing, and leaves the other's record.
func TestWhoComesTooLateChangesNothing(t *testing.T) {
	t.Parallel()
	m, root := tree(t, map[string]string{"etc/docker/daemon.json": `{"a":1}`})
	was := seen(t, root)
	late, err := m.Compare(planned(t, "docker", other(t)))
	if err != nil {
		t.Fatal(err)
	}
	sets(t, m, "docker", plain())
	before := seen(t, root)
	if err := late.Write(); err == nil || !strings.Contains(err.Error(), "meanwhile") || seen(t, root) != before {
		t.Errorf("%v\nleft is\n%s\nwas\n%s", err, seen(t, root), before)
	}
	if undoes(t, m, "docker"); seen(t, root) != was {
		t.Errorf("undone is\n%s\nwas\n%s", seen(t, root), was)
	}
}

// Several at once, scripts and programs, of two minds: one after the other does its work, and all is undone.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	for range 2 {
		m, root := tree(t, map[string]string{"etc/docker/daemon.json": `{"a":1}`, "run/x": ""})
		was := seen(t, root)
		plans := []Plan{planned(t, "docker", plain()), planned(t, "docker", other(t))}
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				if i < 4 {
					_, _ = runs(t, []string{"sh"}, plans[i%2], "", "-root", root) // of two minds, one may have to be refused
				} else if c, err := m.Compare(plans[i%2]); err == nil {
					_ = c.Write() // as above
				}
			})
		}
		wg.Wait()
		if got := content(t, root, "etc/docker/daemon.json"); !strings.Contains(got, "example:") {
			t.Errorf("nobody has written anything: %s", got)
		}
		if undoes(t, m, "docker"); seen(t, root) != was {
			t.Errorf("undone is\n%s\nwas\n%s", seen(t, root), was)
		}
	}
}

// Who finds another at work, or what one has left that was killed, says so and changes nothing.
func TestAnotherIsAtWork(t *testing.T) {
	t.Parallel()
	m, root := tree(t, map[string]string{lockName: ""})
	m.patience = 1
	was := seen(t, root)
	c, err := m.Compare(planned(t, "docker", plain()))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(); err == nil || !strings.Contains(err.Error(), lockName) || seen(t, root) != was {
		t.Errorf("%v\n%s", err, seen(t, root))
	}
	bin := t.TempDir() // with a sleep that takes no time
	if err := os.WriteFile(filepath.Join(bin, "sleep"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-s", "--", "-root", root)
	cmd.Stdin, cmd.Env = strings.NewReader(string(planned(t, "docker", plain()).Script())), []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), lockName) || seen(t, root) != was {
		t.Errorf("%v\n%s\n%s", err, out, seen(t, root))
	}
	if err := errors.Join(os.Remove(filepath.Join(root, lockName)), c.Write()); err != nil {
		t.Error(err)
	}
}
