package setup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree makes a machine with files, and returns it with its root.
func tree(t *testing.T, files map[string]string) (*Machine, string) {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		at := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o750), os.WriteFile(at, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := NewMachine(root)
	if err != nil {
		t.Fatal(err)
	}
	return m, root
}

// seen is what lies below a folder: files with mode and content, links, and folders.
func seen(t *testing.T, root string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if err != nil || at == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all.WriteString(strings.TrimPrefix(at, root) + " " + info.Mode().String())
		if d.Type().IsRegular() {
			text, err := os.ReadFile(at)
			all.Write(append([]byte(":\n"), text...))
			return err
		}
		all.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// does writes what is to change, and returns how many files that were.
func does(t *testing.T, c *Changes, err error) int {
	t.Helper()
	if err == nil {
		err = c.Write()
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(c.Files)
}

// sets sets a client up.
func sets(t *testing.T, m *Machine, client string, o Options) int {
	t.Helper()
	o.Machine = m
	c, err := m.Compare(planned(t, client, o))
	return does(t, c, err)
}

func undoes(t *testing.T, m *Machine, client string) int {
	t.Helper()
	c, err := m.Undo(client)
	return does(t, c, err)
}

func content(t *testing.T, root, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What is undone is as it was, to the byte and the mode, and folders too. A second run changes
// nothing.
func TestUndoneIsAsItWas(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"etc/docker/daemon.json": `{"a":1}`, "etc/docker/certs.d/other/ca.crt": "x", "etc/containerd/config.toml": "version = 2\r\n",
		"etc/containers/registries.conf": "unqualified-search-registries = ['docker.io']", "etc/rancher/k3s/registries.yaml": "configs: {}", "etc/buildkit/buildkitd.toml": "",
	}
	for _, client := range Clients() {
		spaces := map[string]string{"etc/containerd/config.toml": "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/opt/my certs'\n"}
		for _, start := range []map[string]string{nil, files, spaces} {
			m, root := tree(t, start)
			was := seen(t, root)
			if n := sets(t, m, client, secure(t)); n == 0 {
				t.Errorf("%s: nothing is written", client)
			}
			if n := sets(t, m, client, secure(t)); n != 0 {
				t.Errorf("%s: %d files change again", client, n)
			}
			sets(t, m, client, plain()) // the other way, in between
			if n := undoes(t, m, client); n == 0 || seen(t, root) != was {
				t.Errorf("%s: %d files undone, left is\n%s\nwas\n%s", client, n, seen(t, root), was)
			}
			if n := undoes(t, m, client); n != 0 {
				t.Errorf("%s: %d files undone again", client, n)
			}
		}
	}
}

// What others have done to the files since stays.
func TestUndoKeepsWhatOthersDid(t *testing.T) {
	t.Parallel()
	m, root := tree(t, map[string]string{"etc/docker/daemon.json": "{\n  \"a\": 1\n}\n"})
	sets(t, m, "docker", plain())
	changed := strings.Replace(content(t, root, "etc/docker/daemon.json"), `"a": 1`, `"a": 2, "b": 3`, 1)
	hosts := content(t, root, "etc/docker/certs.d/_default/hosts.toml") + "[host.'https://other']\n"
	err := errors.Join(os.WriteFile(filepath.Join(root, "etc/docker/daemon.json"), []byte(changed), 0o600),
		os.WriteFile(filepath.Join(root, "etc/docker/certs.d/_default/hosts.toml"), []byte(hosts), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if n := sets(t, m, "docker", plain()); n != 0 {
		t.Errorf("%d files change though setup's part is there", n)
	}
	undoes(t, m, "docker")
	if got := content(t, root, "etc/docker/daemon.json"); got != "{\n  \"a\": 2, \"b\": 3\n}\n" {
		t.Errorf("daemon.json is %s", got)
	}
	if got := content(t, root, "etc/docker/certs.d/_default/hosts.toml"); got != "[host.'https://other']\n" {
		t.Errorf("hosts.toml is %s", got)
	}
}

// Other registries than before: the files of those before go.
func TestAnotherSetupReplacesTheOneBefore(t *testing.T) {
	t.Parallel()
	m, root := tree(t, nil)
	o := plain()
	o.Registries = []string{"ghcr.io", "quay.io"}
	sets(t, m, "containerd", o)
	o.Registries = []string{"quay.io"}
	sets(t, m, "containerd", o)
	if _, err := os.Stat(filepath.Join(root, "etc/containerd/certs.d/ghcr.io")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder of a registry that is not set up any more: %v", err)
	}
	if got := content(t, root, "etc/containerd/certs.d/quay.io/hosts.toml"); !strings.Contains(got, "quay.io") {
		t.Errorf("hosts.toml is %s", got)
	}
}

// Somebody's changes inside of what setup wrote are not lost.
func TestChangedPartIsRefused(t *testing.T) {
	t.Parallel()
	m, root := tree(t, nil)
	sets(t, m, "containerd", plain())
	at := filepath.Join(root, "etc/containerd/certs.d/_default/hosts.toml")
	text := strings.Replace(content(t, root, "etc/containerd/certs.d/_default/hosts.toml"), `dial_timeout = "1s"`, `dial_timeout = "9s"`, 1)
	if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := m.Compare(planned(t, "containerd", secure(t)))
	if by, ok := errors.AsType[*ByHand](err); !ok || by.Path != "/etc/containerd/certs.d/_default/hosts.toml" {
		t.Errorf("error %v", err)
	}
}

// What is added inside of setup's part of a YAML file keeps undo from breaking it.
func TestUndoBreaksNothing(t *testing.T) {
	t.Parallel()
	m, root := tree(t, nil)
	sets(t, m, "k3s", secure(t))
	text := content(t, root, "etc/rancher/k3s/registries.yaml") + "    auth: {username: x, password: y}\n"
	if err := os.WriteFile(filepath.Join(root, "etc/rancher/k3s/registries.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := m.Undo("k3s")
	if _, ok := errors.AsType[*ByHand](err); !ok {
		t.Errorf("error %v", err)
	}
}

// A link is followed within the root, and stays a link.
func TestLinkIsFollowedInTheRoot(t *testing.T) {
	t.Parallel()
	m, root := tree(t, map[string]string{"opt/daemon.json": "{}"})
	err := errors.Join(os.MkdirAll(filepath.Join(root, "etc/docker/certs.d/_default"), 0o750),
		os.Symlink("/opt/daemon.json", filepath.Join(root, "etc/docker/daemon.json")),
		os.Symlink("../../../../../../../../../../../../opt/hosts.toml", filepath.Join(root, "etc/docker/certs.d/_default/hosts.toml")))
	if err != nil {
		t.Fatal(err)
	}
	was := seen(t, root)
	sets(t, m, "docker", plain())
	if got := content(t, root, "opt/daemon.json"); !strings.Contains(got, "registry-mirrors") {
		t.Errorf("what the link leads to is %s", got)
	}
	if got := content(t, root, "opt/hosts.toml"); !strings.Contains(got, "capabilities") {
		t.Errorf("what the other link leads to is %s", got)
	}
	undoes(t, m, "docker")
	if got := content(t, root, "opt/daemon.json"); got != "{}" || !strings.Contains(was, "daemon.json L") || !strings.Contains(seen(t, root), "/etc/docker/daemon.json L") {
		t.Errorf("left is %s", seen(t, root))
	}
}

// If one file can't be written, none is.
func TestAllOrNothing(t *testing.T) {
	t.Parallel()
	m, root := tree(t, map[string]string{"etc/docker/daemon.json": "{}"})
	if err := os.MkdirAll(filepath.Join(root, "etc/docker/certs.d/_default/hosts.toml"), 0o750); err != nil { // a folder
		t.Fatal(err)
	}
	was := seen(t, root)
	if c, err := m.Compare(planned(t, "docker", plain())); err == nil {
		t.Errorf("%d changes, though one is impossible", len(c.Files))
	}
	if err := os.Remove(filepath.Join(root, "etc/docker/certs.d/_default/hosts.toml")); err != nil {
		t.Fatal(err)
	}
	was = strings.Replace(was, "/etc/docker/certs.d/_default/hosts.toml drwxr-x---\n", "", 1)
	c, err := m.Compare(planned(t, "docker", plain()))
	if err != nil {
		t.Fatal(err)
	}
	// Between looking and writing a file comes to be a folder: the last step fails.
	for _, name := range []string{"etc/docker/certs.d", "etc/docker/oci-proxy-setup"} {
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/docker/certs.d"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(); err == nil || !strings.Contains(err.Error(), "nothing has been changed") {
		t.Errorf("error %v", err)
	}
	if got := seen(t, root); !strings.Contains(got, "daemon.json -rw-------:\n{}") || strings.Contains(got, recordName) || strings.Contains(got, ".oci-proxy") {
		t.Errorf("left is\n%s\nwas\n%s", got, was)
	}
}

// What a machine has already decides about the plan.
func TestSurveys(t *testing.T) {
	t.Parallel()
	own := "[plugins.'io.containerd.grpc.v1.cri'.registry]\n"
	for name, c := range map[string]struct {
		client string
		files  map[string]string
		want   string // the paths that change, or the refusal
	}{
		"config_path elsewhere": {"containerd", map[string]string{"etc/containerd/config.toml": "version=2\n" + own + "config_path='/etc/other:/x'"}, "/etc/other/_default/hosts.toml"},
		"CRI is off":            {"containerd", map[string]string{"etc/containerd/config.toml": "disabled_plugins = ['cri']"}, "/etc/containerd/certs.d/_default/hosts.toml"},
		"older mirrors":         {"containerd", map[string]string{"etc/containerd/config.toml": "version=2\n" + own + "mirrors.'docker.io'.endpoint=['x']"}, "registry.mirrors"},
		"older tls":             {"containerd", map[string]string{"etc/containerd/config.toml": "version=2\n" + own + "configs.x.tls.ca_file='y'"}, "registry.configs"},
		"odd config_path":       {"containerd", map[string]string{"etc/containerd/config.toml": "version=2\n" + own + "config_path='../x'"}, "not a plain absolute path"},
		"broken config":         {"containerd", map[string]string{"etc/containerd/config.toml": "version = "}, "not valid TOML"},
		"set in an import":      {"containerd", map[string]string{"etc/containerd/config.toml": "version=2\nimports=['conf.d/*.toml']", "etc/containerd/conf.d/a.toml": "version=2\n" + own + "config_path='/c'"}, "/c/_default/hosts.toml"},
		"overridden by one":     {"containerd", map[string]string{"etc/containerd/config.toml": "version=2\nimports=['/etc/containerd/conf.d/*.toml']", "etc/containerd/conf.d/a.toml": "version=2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image='x'"}, "which it imports"},
		"podman's own entries":  {"podman", map[string]string{"etc/containers/registries.conf": "[[registry]]\nlocation='docker.io'", "etc/containers/registries.conf.d/a.conf": "[[registry]]\nprefix='ghcr.io'\nlocation='x'"}, "/etc/containers/registries.conf.d/oci-proxy.conf"},
		"podman's first format": {"podman", map[string]string{"etc/containers/registries.conf": "[registries.search]\nregistries = ['docker.io']"}, "first version"},
		"podman's broken":       {"podman", map[string]string{"etc/containers/registries.conf": "[["}, "registries.conf"},
	} {
		m, _ := tree(t, c.files)
		o := plain()
		o.Machine = m
		got := ""
		p, err := New(c.client, o)
		var changes *Changes
		if err == nil {
			changes, err = m.Compare(p)
		}
		if err != nil {
			got = err.Error()
		} else {
			for _, f := range changes.Files {
				got += f.Path
			}
		}
		if !strings.Contains(got, c.want) || err == nil && got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
		if strings.Contains(name, "own entries") && (strings.Contains(changes.Diff(), `"docker.io"`) || strings.Contains(changes.Diff(), `"ghcr.io"`) || !strings.Contains(strings.Join(p.Notes, "\n"), "a.conf has an entry for ghcr.io")) {
			t.Errorf("%s: %s\n%q", name, changes.Diff(), p.Notes)
		}
	}
}
