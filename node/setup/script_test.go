package setup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shells are the ones that are on this machine.
func shells() (all [][]string) {
	for _, s := range [][]string{{"sh"}, {"dash"}, {"busybox", "sh"}, {"bash", "--posix"}} {
		if _, err := exec.LookPath(s[0]); err == nil {
			all = append(all, s)
		}
	}
	return all
}

// runs runs the script of a plan, and returns what it prints. tools are all that it finds
// beside the usual ones.
func runs(t *testing.T, shell []string, p Plan, path string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), shell[0], append(append(shell[1:len(shell):len(shell)], "-s", "--"), args...)...)
	cmd.Stdin = strings.NewReader(string(p.Script()))
	if path != "" {
		cmd.Env = []string{"PATH=" + path}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The script does what the program does, and each undoes what the other did.
func TestScript(t *testing.T) {
	t.Parallel()
	type step struct {
		args, says string
		same       bool
	}
	steps := []step{
		{"-n", "nothing has been changed (-n)", true},
		{"", "files written", false},
		{"", "nothing to change", false},
		{"-n -undo", "nothing has been changed (-n)", false},
		{"-undo", "without setup's part again", true},
		{"-undo", "nothing to undo", true},
		{"", "files written", false},
	}
	for i, client := range []string{"docker", "containerd"} {
		shell := shells()[i%len(shells())]
		m, root := tree(t, map[string]string{"etc/docker/daemon.json": "{\"a\":1}"})
		was := seen(t, root)
		o := secure(t, "ghcr.io", "docker.io")
		p := planned(t, client, o)
		if client != "docker" || testing.Short() {
			steps = steps[len(steps)-1:]
		}
		for _, s := range steps {
			out, err := runs(t, shell, p, "", append(strings.Fields(s.args), "-root", root)...)
			if err != nil || !strings.Contains(out, s.says) || s.same != (seen(t, root) == was) {
				t.Fatalf("%s %s %s: %v\n%s\nleft is\n%s", shell, client, s.args, err, out, seen(t, root))
			}
		}
		if n := sets(t, m, client, o); n != 0 {
			t.Errorf("%s: the program changes %d files that the script wrote", client, n)
		}
		if undoes(t, m, client); seen(t, root) != was {
			t.Errorf("%s: the program leaves\n%s\nwas\n%s", client, seen(t, root), was)
		}
	}
}

// tools makes a folder of programs for PATH: what any machine has, and the ones named.
func tools(t *testing.T, more ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range append(more, "awk", "cat", "chmod", "cmp", "cp", "diff", "find", "grep", "mkdir", "mktemp", "mv", "readlink", "rm", "rmdir", "sed", "sort", "tail", "tr") {
		at, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("%s is not on this machine", name)
		}
		if err := os.Symlink(at, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Where nothing can merge JSON, the script says what to add and changes nothing; with jq
// it merges, and keeps what others did when it takes that back.
func TestScriptWithoutPython(t *testing.T) {
	t.Parallel()
	p := planned(t, "docker", plain())
	_, root := tree(t, map[string]string{"etc/docker/daemon.json": "{\"a\":1}"})
	was := seen(t, root)
	shell := []string{"/bin/sh"}
	out, err := runs(t, shell, p, tools(t), "-root", root)
	if err == nil || seen(t, root) != was || !strings.Contains(out, "python3 or jq") || !strings.Contains(out, `"registry-mirrors": ["http://proxy.example:8080"]`) {
		t.Errorf("%v\n%s", err, out)
	}
	with := tools(t, "jq")
	if out, err := runs(t, shell, p, with, "-root", root); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	at := filepath.Join(root, "etc/docker/daemon.json")
	changed := strings.Replace(content(t, root, "etc/docker/daemon.json"), `"a"`, `"b": 2, "a"`, 1)
	if err := os.WriteFile(at, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = runs(t, shell, p, with, "-undo", "-root", root)
	if got := content(t, root, "etc/docker/daemon.json"); err != nil || !sameJSON([]byte(got), []byte(`{"a":1,"b":2}`)) {
		t.Errorf("%v\n%s\n%s", err, out, got)
	}
}

// What the script can't merge it leaves alone.
func TestScriptRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ client, file, text, says string }{
		"broken JSON":       {"docker", "etc/docker/daemon.json", "{ // x\n}", "not valid JSON"},
		"no list":           {"docker", "etc/docker/daemon.json", `{"registry-mirrors": "x"}`, "not a list"},
		"others' hosts":     {"docker", "etc/docker/certs.d/_default/hosts.toml", "[host.x]", "merges no such files"},
		"containerd's own":  {"containerd", "etc/containerd/config.toml", "version = 3", "merges no TOML"},
		"k3s's own mirrors": {"k3s", "etc/rancher/k3s/registries.yaml", "mirrors: {}", "merges no such files"},
	} {
		_, root := tree(t, map[string]string{c.file: c.text})
		was := seen(t, root)
		out, err := runs(t, []string{"sh"}, planned(t, c.client, plain()), "", "-root", root)
		if err == nil || seen(t, root) != was || !strings.Contains(out, c.says) || !strings.Contains(out, "proxy.example:8080") && c.client != "containerd" {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// Half a script does nothing, and one without its last bytes does not forget -n.
func TestScriptCutOff(t *testing.T) {
	t.Parallel()
	_, root := tree(t, nil)
	text := scriptBelow(t, root)
	cuts := []int{len(text) / 2, len(text) / 3, len(text) / 5}
	for n := 1; n < 60; n++ {
		cuts = append(cuts, n)
	}
	for _, cut := range cuts {
		cmd := exec.CommandContext(t.Context(), "sh", "-s", "--", "-n")
		cmd.Stdin = strings.NewReader(text[:len(text)-cut])
		_ = cmd.Run() // however it ends
		if left := seen(t, root); left != "" {
			t.Fatalf("without its last %d bytes it left %s", cut, left)
		}
	}
	if !strings.HasSuffix(text, "\n{\n  main \"$@\"\n  exit\n}\n") {
		t.Error("something runs before the end")
	}
}

// Nothing that lies in the folder in which the script runs is run by it.
func TestScriptRunsNothingOfItsFolder(t *testing.T) {
	t.Parallel()
	cases := []string{"", "-undo"}
	if testing.Short() {
		cases = cases[:1]
	}
	for _, merges := range cases {
		_, root := tree(t, map[string]string{"etc/docker/daemon.json": "{}", "here/json.py": "open('ran', 'w')", "here/re.py": "open('ran', 'w')"})
		p := planned(t, "docker", plain())
		if merges == "-undo" {
			if out, err := runs(t, []string{"sh"}, p, "", "-root", root); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			replaces(t, root, "etc/docker/daemon.json", "{", `{"a": 1,`)
		}
		cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-s", "--", "-root", root}, strings.Fields(merges)...)...)
		cmd.Dir, cmd.Stdin = filepath.Join(root, "here"), strings.NewReader(string(p.Script()))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", merges, err, out)
		}
		if _, err := os.Stat(filepath.Join(root, "here/ran")); err == nil {
			t.Errorf("%q: a file in the folder has run", merges)
		}
	}
}

// Files for podman that have entries of others, in whatever form, are left to the program.
func TestScriptLooksForOthersRegistries(t *testing.T) {
	t.Parallel()
	const main, more = "etc/containers/registries.conf", "etc/containers/registries.conf.d/"
	for name, c := range map[string]struct {
		file, text string
		done       bool
	}{
		"blocked":           {main, "[[registry]]\nprefix = 'docker.io'\nblocked = true\n", false},
		"spaces":            {more + "a.conf", "x = 1\r\n\t[[ registry ]]\r\nlocation = 'ghcr.io'\r\n", false},
		"quotes":            {more + ".a b.conf", "[[\"registry\"]]\nlocation = 'ghcr.io'", false},
		"a list":            {main, "registry = [{location = 'ghcr.io'}]", false},
		"first format":      {main, "[registries.search]\nregistries = ['docker.io']", false},
		"first format, key": {main, "registries.insecure.registries = ['x']", false},
		"search alone":      {main, "unqualified-search-registries = ['docker.io']\n# [[registry]]\n", true},
		"names alone":       {more + "000-shortnames.conf", "[aliases]\n'alpine' = 'docker.io/library/alpine'", true},
		"a name registry":   {more + "shortnames.conf", "[aliases]\n  \"registry\" = \"docker.io/library/registry\"\n", true},
		"after the names":   {more + "shortnames.conf", "[aliases]\n'a' = 'docker.io/library/a'\n[[registry]]\nlocation = 'ghcr.io'\n", false},
		"not read":          {more + "a.conf.old", "[[registry]]\nlocation = 'ghcr.io'", true},
	} {
		_, root := tree(t, map[string]string{c.file: c.text})
		was := seen(t, root)
		out, err := runs(t, []string{"sh"}, planned(t, "podman", plain()), "", "-root", root)
		if c.done != (err == nil) || c.done == (seen(t, root) == was) || c.done == strings.Contains(out, "oci-proxy setup podman looks at them") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// The script takes back by itself only what ends as it was before.
func TestScriptUndoRefuses(t *testing.T) {
	t.Parallel()
	const hosts = "etc/docker/certs.d/_default/hosts.toml"
	for name, c := range map[string]struct{ old, new, says string }{
		"without its end": {closes + "\n", "[host.'https://other']\n", "that ends setup's part is gone"},
		"half of another": {closes + "\n", opens + "\n" + closes + "\n", "that ends setup's part is gone"},
		"with more":       {closes + "\n", closes + "\n[host.'http://proxy.example:8080'.header]\n", "others have changed it since"},
	} {
		_, root := tree(t, nil)
		p := planned(t, "docker", plain())
		if out, err := runs(t, []string{"sh"}, p, "", "-root", root); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		replaces(t, root, hosts, c.old, c.new)
		was := seen(t, root)
		out, err := runs(t, []string{"sh"}, p, "", "-undo", "-root", root)
		if err == nil || seen(t, root) != was || !strings.Contains(out, c.says) || !strings.Contains(out, "nothing has been changed") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	_, root := tree(t, nil) // somebody has taken the part away already
	p := planned(t, "docker", plain())
	if out, err := runs(t, []string{"sh"}, p, "", "-root", root); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	replaces(t, root, hosts, content(t, root, hosts), "[host.'https://other']")
	out, err := runs(t, []string{"sh"}, p, "", "-undo", "-root", root)
	if err != nil || content(t, root, hosts) != "[host.'https://other']" || strings.Contains(seen(t, root), recordName) {
		t.Errorf("%v\n%s\nleft is %s", err, out, seen(t, root))
	}
}

// No link leads the script out of its root, wherever it is.
func TestScriptStaysInItsRoot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		link, to string
		args     string
		done     bool
	}{
		"a folder further up":     {"etc/docker/certs.d", "", "", false},
		"a folder above":          {"etc", "", "", false},
		"the client's folder":     {"etc/docker", "", "", false},
		"the record":              {"etc/docker/oci-proxy-setup", "", "", false},
		"in the record":           {"etc/docker/oci-proxy-setup/before", "", "", false},
		"in the record, for undo": {"etc/docker/oci-proxy-setup/after", "", "-undo", false},
		"the probe":               {"etc/docker/.oci-proxy-setup", "kept", "", true},
	} {
		_, out := tree(t, map[string]string{"kept": "x", "docker/daemon.json": "{}"})
		_, root := tree(t, nil)
		at := filepath.Join(root, c.link)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o750), os.Symlink(filepath.Join(out, c.to), at)); err != nil {
			t.Fatal(err)
		}
		was := seen(t, out)
		said, err := runs(t, []string{"sh"}, planned(t, "docker", plain()), "", append(strings.Fields(c.args), "-root", root)...)
		if c.done != (err == nil) || seen(t, out) != was {
			t.Errorf("%s: %v\n%s\nthere is\n%s", name, err, said, seen(t, out))
		}
	}
}

// A record that somebody else has written removes no folder elsewhere.
func TestScriptRemovesNoFolderElsewhere(t *testing.T) {
	t.Parallel()
	_, out := tree(t, nil)
	_, root := tree(t, nil)
	p := planned(t, "docker", plain())
	if said, err := runs(t, []string{"sh"}, p, "", "-root", root); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	rel, err := filepath.Rel(root, out)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.Mkdir(filepath.Join(out, "a"), 0o750), os.Mkdir(filepath.Join(out, "b"), 0o750), os.Symlink(out, filepath.Join(root, "link")),
		os.WriteFile(filepath.Join(root, "etc/docker/oci-proxy-setup/made"), []byte("/link/a\n/"+rel+"/b\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	was := seen(t, out)
	if said, err := runs(t, []string{"sh"}, p, "", "-undo", "-root", root); err != nil || seen(t, out) != was {
		t.Errorf("%v\n%s\nleft is %s", err, said, seen(t, out))
	}
}

// An empty root, as of a variable that is not set, is not this machine's.
func TestScriptTakesNoEmptyRoot(t *testing.T) {
	t.Parallel()
	_, root := tree(t, nil)
	cmd := exec.CommandContext(t.Context(), "sh", "-s", "--", "-root", "")
	cmd.Stdin = strings.NewReader(scriptBelow(t, root))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "usage") || seen(t, root) != "" {
		t.Errorf("%v\n%s\nthere is %s", err, out, seen(t, root))
	}
}

// scriptBelow is a script for Docker whose files are below a folder even if it is run without -root.
func scriptBelow(t *testing.T, root string) string {
	t.Helper()
	return strings.ReplaceAll(string(planned(t, "docker", plain()).Script()), "'/etc/docker", "'"+root+"/etc/docker")
}
