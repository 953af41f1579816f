package setup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// replaces changes a text in a file.
func replaces(t *testing.T, root, name, from, to string) {
	t.Helper()
	text := content(t, root, name)
	if !strings.Contains(text, from) {
		t.Fatalf("%s has no %q:\n%s", name, from, text)
	}
	if err := os.WriteFile(filepath.Join(root, name), []byte(strings.Replace(text, from, to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What others have added below setup's part, and that needs it, keeps the part: another setup
// has nothing to do, and undo says what to remove.
func TestPartThatOthersNeed(t *testing.T) {
	t.Parallel()
	const hosts, config, k3s = "etc/docker/certs.d/_default/hosts.toml", "etc/containerd/config.toml", "etc/rancher/k3s/registries.yaml"
	v2 := "[plugins.'io.containerd.grpc.v1.cri']\n"
	for name, c := range map[string]struct {
		client, file, before, add, says string
	}{
		"header":          {"docker", hosts, "", "\n[host.\"http://proxy.example:8080\".header]\n  Authorization = \"Basic eA==\"\n", `[host."http://proxy.example:8080"]`},
		"header, others":  {"docker", hosts, "server = 'https://x'\n", "[host.'http://proxy.example:8080'.header]\nA = 'x'\n", `[host."http://proxy.example:8080"]`},
		"key":             {"docker", hosts, "", "skip_verify = true\n", "belongs to setup's part"},
		"version":         {"containerd", config, "", v2 + "sandbox_image = 'x'\n", "needs the version"},
		"another plugin":  {"containerd", config, "", "[debug]\nlevel = 'info'\n", "needs the version"},
		"key of ours":     {"containerd", config, "version = 2\n[debug]\nlevel = 'info'\n", "headers = {}\n", "belongs to setup's part"},
		"table of ours":   {"containerd", config, "version = 2\n", "[plugins.'io.containerd.grpc.v1.cri'.registry.configs.x.auth]\nusername = 'x'\n", "registry]"},
		"YAML":            {"k3s", k3s, "", "    rewrite: {a: b}\n", "belongs to setup's part"},
		"YAML, others":    {"k3s", k3s, "mirrors:\n  x:\n    endpoint: [y]\n", "    rewrite: {a: b}\n", "belongs to setup's part"},
		"a list's table":  {"podman", "etc/containers/registries.conf.d/oci-proxy.conf", "", "[[registry.mirror]]\nlocation = 'x'\n", "belongs to setup's part"},
		"a key of a list": {"podman", "etc/containers/registries.conf.d/oci-proxy.conf", "", "blocked = true\n", "belongs to setup's part"},
	} {
		files := map[string]string{}
		if c.before != "" {
			files[c.file] = c.before
		}
		m, root := tree(t, files)
		sets(t, m, c.client, plain())
		replaces(t, root, c.file, closes+"\n", closes+"\n"+c.add)
		was := seen(t, root)
		if n := sets(t, m, c.client, plain()); n != 0 || seen(t, root) != was {
			t.Errorf("%s: %d files change again\n%s", name, n, seen(t, root))
		}
		_, err := m.Undo(c.client)
		if by, ok := errors.AsType[*ByHand](err); !ok || by.Path != "/"+c.file || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "Take that part away yourself") || strings.Contains(err.Error(), "Add this") {
			t.Errorf("%s: error %v", name, err)
		}
		// Without its record nothing is taken away either.
		if err := os.RemoveAll(filepath.Join(root, filepath.Dir(clientNamed(c.client).dir), filepath.Base(clientNamed(c.client).dir), recordName)); err != nil {
			t.Fatal(err)
		}
		if changes, err := m.Compare(planned(t, c.client, plain())); err == nil && len(changes.Files) > 0 {
			t.Errorf("%s: without a record it changes\n%s", name, changes.Diff())
		}
	}
}

// What others have added and that stands by itself is left.
func TestUndoLeavesWhatStandsByItself(t *testing.T) {
	t.Parallel()
	m, root := tree(t, map[string]string{"etc/containerd/config.toml": "version = 2\n"})
	sets(t, m, "containerd", plain())
	replaces(t, root, "etc/containerd/config.toml", closes+"\n", closes+"\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'native'\n")
	undoes(t, m, "containerd")
	if got := content(t, root, "etc/containerd/config.toml"); got != "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'native'\n" {
		t.Errorf("left is %s", got)
	}
}

// A part whose end is gone is not taken away, and its record stays.
func TestPartWithoutItsEnd(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"", "[host.x]\n", opens + "\n" + closes + "\n"} {
		m, root := tree(t, nil)
		sets(t, m, "docker", plain())
		replaces(t, root, "etc/docker/certs.d/_default/hosts.toml", closes+"\n", end)
		_, err := m.Undo("docker")
		if _, ok := errors.AsType[*ByHand](err); !ok || !strings.Contains(err.Error(), "that ends setup's part is gone") {
			t.Errorf("%q: error %v", end, err)
		}
	}
}

// Files that somebody has removed, or that a crash has kept from being written, are no
// obstacle: they are written again, and undo clears the record.
func TestPartsThatAreGone(t *testing.T) {
	t.Parallel()
	for _, client := range Clients() {
		m, root := tree(t, nil)
		p := planned(t, client, plain())
		gone := func() {
			for _, f := range p.Files {
				if err := os.Remove(filepath.Join(root, f.Path)); err != nil {
					t.Fatal(err)
				}
			}
		}
		sets(t, m, client, plain())
		gone()
		if n := sets(t, m, client, plain()); n != len(p.Files) {
			t.Errorf("%s: %d files are written again, of %d", client, n, len(p.Files))
		}
		gone()
		if n := undoes(t, m, client); n != 0 || strings.Contains(seen(t, root), recordName) || strings.Contains(seen(t, root), "certs.d") {
			t.Errorf("%s: %d files undone, left is\n%s", client, n, seen(t, root))
		}
	}
}
