package page

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// runNode runs a script with Node.js, as an ES module that can import the page's. It
// passes input as JSON on standard input, and decodes what the script prints into
// output.
func runNode(t *testing.T, script string, input, output any) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed: the page's scripts are not run")
	}
	dir := t.TempDir()
	write := func(name string, content []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("package.json", []byte(`{"type": "module"}`))
	files, err := web.ReadDir("web")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		write(f.Name(), []byte(read(t, f.Name())))
	}
	write("test.js", []byte(script))
	in, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, filepath.Join(dir, "test.js"))
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, stderr.String())
	}
	if err := json.Unmarshal(out, output); err != nil {
		t.Fatalf("node printed %q: %v", out, err)
	}
}

const (
	hash   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	pinned = "sha256:" + hash
)

// A rewriting is a row: what is pasted and what must come out. If reason is "", the
// command must be want. notes are keys without "note.".
type rewriting struct {
	Text     string
	Tool     string
	Proxy    string
	Scheme   string
	Registry string // default_registry; "": Docker Hub
	want     string
	reason   string
	notes    []string
}

// full is the command of pull, tag and rmi.
func full(tool, through, own string) string {
	return tool + " pull " + through + " && " + tool + " tag " + through + " " + own + " && " + tool + " rmi " + through
}

var rewritings = []rewriting{
	// Names.
	{Text: "nginx", want: full("docker", "p:80/nginx", "nginx")},
	{Text: "nginx:1.27", want: full("docker", "p:80/nginx:1.27", "nginx:1.27")},
	{Text: "docker", want: full("docker", "p:80/docker", "docker")},
	{Text: "pull", want: full("docker", "p:80/pull", "pull")},
	{Text: "bitnami/redis", want: full("docker", "p:80/bitnami/redis", "bitnami/redis")},
	{Text: "docker.io/nginx", want: full("docker", "p:80/docker.io/nginx", "docker.io/nginx")},
	{Text: "docker.io/library/nginx:1", want: full("docker", "p:80/docker.io/library/nginx:1", "docker.io/library/nginx:1")},
	{Text: "ghcr.io/a/b:tag", want: full("docker", "p:80/ghcr.io/a/b:tag", "ghcr.io/a/b:tag")},
	{Text: "GHCR.io/a/b", want: full("docker", "p:80/ghcr.io/a/b", "ghcr.io/a/b")},
	{Text: "quay.io/a__b/c--d.e:V1.0_x-y", want: full("docker", "p:80/quay.io/a__b/c--d.e:V1.0_x-y", "quay.io/a__b/c--d.e:V1.0_x-y")},
	{Text: "localhost/x", want: full("docker", "p:80/localhost/x", "localhost/x")},

	// A path can't contain a port.
	{Text: "localhost:5000/x", want: full("docker", "p:80/localhost_5000/x", "localhost:5000/x"), notes: []string{"port"}},
	{Text: "reg.example.com:443/a/b:1", want: full("docker", "p:80/reg.example.com_443/a/b:1", "reg.example.com:443/a/b:1"), notes: []string{"port"}},
	{Text: "aliased:5000/x:1", want: full("docker", "p:80/short/x:1", "aliased:5000/x:1"), notes: []string{"port"}},
	{Text: "badly.aliased:5000/x", want: full("docker", "p:80/badly.aliased_5000/x", "badly.aliased:5000/x"), notes: []string{"port"}},

	// A user at Docker Hub whose name is an alias here.
	{Text: "short/x", want: full("docker", "p:80/docker.io/short/x", "short/x")},

	// Digests.
	{Text: "ghcr.io/a/b@" + pinned, want: "docker pull p:80/ghcr.io/a/b@" + pinned, notes: []string{"digest"}},
	{Text: "nginx@" + pinned, Tool: "podman", want: "podman pull p:80/nginx@" + pinned, notes: []string{"digest"}},
	{Text: "nginx@" + pinned, Tool: "nerdctl", want: "nerdctl pull p:80/nginx@" + pinned, notes: []string{"digest"}},
	{Text: "nginx:1@" + pinned, want: full("docker", "p:80/nginx@"+pinned, "nginx:1"), notes: []string{"digestTag"}},
	{Text: "nginx@sha512:" + hash + hash, want: "docker pull p:80/nginx@sha512:" + hash + hash, notes: []string{"digest"}},
	{Text: "nginx@sha256:" + hash[1:], reason: "digest"},
	{Text: "nginx@sha256:" + strings.ToUpper(hash), reason: "digest"},
	{Text: "nginx@md5:d41d8cd98f00b204e9800998ecf8427e", reason: "digest"},
	{Text: "nginx@", reason: "digest"},
	{Text: "nginx@" + pinned + ":1", reason: "digest"},
	{Text: "nginx@constructor:abc", reason: "digest"},
	{Text: hash, reason: "imageID"},

	// Whole commands with flags.
	{Text: "docker pull x", want: full("docker", "p:80/x", "x")},
	{Text: "docker image pull x", want: full("docker", "p:80/x", "x")},
	{Text: "pull x", want: full("docker", "p:80/x", "x")},
	{Text: "$ docker pull x:1", want: full("docker", "p:80/x:1", "x:1")},
	{Text: "sudo docker pull x", want: full("sudo docker", "p:80/x", "x")},
	{Text: "podman pull --platform linux/arm64 x/y", Tool: "podman", want: "podman pull --platform linux/arm64 p:80/x/y && podman tag p:80/x/y x/y && podman rmi p:80/x/y", notes: []string{"podman"}},
	{Text: "docker pull x --platform=linux/arm/v7 -q", want: "docker pull --platform linux/arm/v7 -q p:80/x && docker tag p:80/x x && docker rmi p:80/x"},
	{Text: "docker pull --quiet x", Tool: "nerdctl", want: "nerdctl pull --quiet p:80/x && nerdctl tag p:80/x x && nerdctl rmi p:80/x"},
	{Text: "docker pull \\\n  --platform 'linux/amd64' \\\r\n  \"x:1\"", want: "docker pull --platform linux/amd64 p:80/x:1 && docker tag p:80/x:1 x:1 && docker rmi p:80/x:1"},
	{Text: "docker pull -a x", want: "docker pull -a p:80/x", notes: []string{"allTags"}},
	{Text: "docker pull --all-tags x:1", reason: "allTagsName"},
	{Text: "docker pull --all-tags x@" + pinned, reason: "allTagsName"},
	{Text: "docker pull -a x", Tool: "nerdctl", reason: "flagTool"},
	{Text: "docker pull --disable-content-trust x", reason: "flag"},
	{Text: "docker pull --platform=$(id) x", reason: "platform"},
	{Text: "docker pull --platform x", reason: "platform"},
	{Text: "docker pull --platform", reason: "platform"},
	{Text: "docker pull x y", reason: "words"},
	{Text: "docker pull", reason: "noName"},
	{Text: "docker run x", want: full("docker", "p:80/x", "x")},
	{Text: "docker push x", reason: "notPull"},
	{Text: "docker -H tcp://a pull x", reason: "notPull"},

	// Junk around a name.
	{Text: "  nginx:1.27 \t\n", want: full("docker", "p:80/nginx:1.27", "nginx:1.27")},
	{Text: "\u00a0nginx\u200b:1\ufeff", want: full("docker", "p:80/nginx:1", "nginx:1")},
	{Text: "`nginx:1`,", want: full("docker", "p:80/nginx:1", "nginx:1")},
	{Text: "“nginx”，", want: full("docker", "p:80/nginx", "nginx")},
	{Text: "nginx:1 # the web server", want: full("docker", "p:80/nginx:1", "nginx:1")},
	{Text: "nginx:1;", want: full("docker", "p:80/nginx:1", "nginx:1")},
	{Text: "docker pull a && docker pull b", want: full("docker", "p:80/a", "a"), notes: []string{"first"}},
	{Text: "a\nb", want: full("docker", "p:80/a", "a"), notes: []string{"first"}},
	{Text: "nginx; rm -rf /", want: full("docker", "p:80/nginx", "nginx"), notes: []string{"first"}},
	{Text: "https://ghcr.io/a/b:1", want: full("docker", "p:80/ghcr.io/a/b:1", "ghcr.io/a/b:1")},
	{Text: "http://ghcr.io/a/b/?x=y#z", want: full("docker", "p:80/ghcr.io/a/b", "ghcr.io/a/b")},
	{Text: "docker://quay.io/a/b", want: full("docker", "p:80/quay.io/a/b", "quay.io/a/b")},
	{Text: "https://hub.docker.com/_/nginx", want: full("docker", "p:80/nginx", "nginx")},
	{Text: "https://hub.docker.com/r/bitnami/redis/tags?page=1", want: full("docker", "p:80/bitnami/redis", "bitnami/redis")},

	// Names that already lead through the proxy.
	{Text: "docker pull p:80/ghcr.io/a/b:1", want: full("docker", "p:80/ghcr.io/a/b:1", "ghcr.io/a/b:1")},
	{Text: "p:80/nginx", want: full("docker", "p:80/nginx", "nginx")},
	{Text: "https://p:80/localhost_5000/x:1", want: full("docker", "p:80/localhost_5000/x:1", "localhost:5000/x:1"), notes: []string{"port"}},
	{Text: "p:80/short/x", want: full("docker", "p:80/short/x", "aliased:5000/x"), notes: []string{"port"}},
	{Text: "p:80/", reason: "onlyRegistry"},
	{Text: "p:80", reason: "onlyRegistry"},

	// Names that don't fit the grammar.
	{Text: "Nginx", reason: "upper"},
	{Text: "ghcr.io/Org/img", reason: "upper"},
	{Text: "Org/img", reason: "upper"},
	{Text: "ghcr.io", reason: "onlyRegistry"},
	{Text: "ghcr.io/", reason: "onlyRegistry"},
	{Text: "localhost:5000", reason: "onlyRegistry"},
	{Text: "ghcr.io//b", reason: "emptyPart"},
	{Text: "/nginx", reason: "emptyPart"},
	{Text: "a/b/", reason: "emptyPart"},
	{Text: "-nginx", reason: "flag"},
	{Text: "nginx-", reason: "part"},
	{Text: "a___b", reason: "part"},
	{Text: "x/a._b", reason: "part"},
	{Text: "ghcr.io/../b", reason: "part"},
	{Text: "../b", reason: "registry"},
	{Text: "my_host.example/b", reason: "registry"},
	{Text: "host:0/b", reason: "registry"},
	{Text: "host:65536/b", reason: "registry"},
	{Text: "host:x/b", reason: "registry"},
	{Text: "[::1]:5000/b", reason: "registry6"},
	{Text: "docker pull [2001:db8::1]/b:1", reason: "registry6"},
	{Text: "six/b", Registry: "[::1]:5000", want: full("docker", "p:80/six/b", "six/b"), notes: []string{"default"}},
	{Text: "short/b", Registry: "[::1]:5000", reason: "registry6"},
	{Text: "nginx:", reason: "tagEmpty"},
	{Text: "nginx:.1", reason: "tag"},
	{Text: "nginx:-1", reason: "tag"},
	{Text: "nginx:1:2", reason: "tag"},
	{Text: "nginx:" + strings.Repeat("t", 128), want: full("docker", "p:80/nginx:"+strings.Repeat("t", 128), "nginx:"+strings.Repeat("t", 128))},
	{Text: "nginx:" + strings.Repeat("t", 129), reason: "tag"},
	{Text: strings.Repeat("n", 250), want: full("docker", "p:80/"+strings.Repeat("n", 250), strings.Repeat("n", 250))},
	{Text: strings.Repeat("n", 251), reason: "long"},
	{Text: strings.Repeat(" ", 4096) + "n", reason: "long"},
	{Text: "nginx$(id)", reason: "character"},
	{Text: "nginx:1>x", reason: "character"},
	{Text: "镜像", reason: "character"},
	{Text: "ngіnx", reason: "character"}, // a Cyrillic і
	{Text: "nginx：1", reason: "character"},
	{Text: "😀", reason: "character"},
	{Text: "nginx redis", reason: "words"},
	{Text: "\"\"", reason: "noName"},

	// Remarks.
	{Text: "nginx", Tool: "podman", want: full("podman", "p:80/nginx", "nginx"), notes: []string{"podman"}},
	{Text: "quay.io/a/b", Tool: "podman", want: full("podman", "p:80/quay.io/a/b", "quay.io/a/b")},
	{Text: "nginx", Registry: "ghcr.io", want: full("docker", "p:80/nginx", "nginx"), notes: []string{"default"}},
	{Text: "nginx", Scheme: "http", want: full("docker", "p:80/nginx", "nginx"), notes: []string{"http.docker"}},
	{Text: "nginx", Scheme: "http", Proxy: "127.0.0.1:5000", want: full("docker", "127.0.0.1:5000/nginx", "nginx")},
	{Text: "a.io/x", Scheme: "http", Proxy: "localhost", Tool: "podman", want: full("podman", "localhost/a.io/x", "a.io/x"), notes: []string{"http.podman"}},
	{Text: "x", Scheme: "http", Tool: "nerdctl", want: full("nerdctl", "p:80/x", "x"), notes: []string{"http.nerdctl"}},
}

const rewriteScript = `
import { readFileSync } from "node:fs";
import { rewrite } from "./reference.js";
import { fill } from "./i18n.js";
import { words } from "./words-pull.js";
const aliases = { "aliased:5000": "short", "badly.aliased:5000": "$(id)" };
const rows = JSON.parse(readFileSync(0, "utf8")).map((r) => {
  const got = rewrite(r.Text, {
    tool: r.Tool || "docker", proxy: r.Proxy || "p:80", scheme: r.Scheme, aliases,
    defaultRegistry: r.Registry || "registry-1.docker.io",
  });
  const said = [got.error, ...(got.notes ?? [])].filter(Boolean);
  return {
    Command: (got.steps ?? []).join(" && "),
    Reason: got.error?.key ?? "",
    Notes: (got.notes ?? []).map((n) => n.key),
    Sentences: said.flatMap((s) => ["en", "zh"].map((l) => fill(l, s.key, s.values, words))),
  };
});
console.log(JSON.stringify(rows));
`

func TestEachReferenceBecomesItsCommandOrIsRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	var got []struct {
		Command, Reason  string
		Notes, Sentences []string
	}
	runNode(t, rewriteScript, rewritings, &got)
	for i, r := range rewritings {
		g := got[i]
		reason := strings.TrimPrefix(g.Reason, "error.")
		for j := range g.Notes {
			g.Notes[j] = strings.TrimPrefix(g.Notes[j], "note.")
		}
		if g.Command != r.want || reason != r.reason || !slices.Equal(g.Notes, r.notes) {
			t.Errorf("%q (%s):\n got %q, reason %q, notes %q\nwant %q, reason %q, notes %q",
				r.Text, r.Tool, g.Command, reason, g.Notes, r.want, r.reason, r.notes)
		}
		for _, s := range g.Sentences {
			if strings.ContainsAny(s, "{}") || strings.HasPrefix(s, "error.") || strings.HasPrefix(s, "note.") || strings.Contains(s, "undefined") {
				t.Errorf("%q: %q is no whole sentence", r.Text, s)
			}
		}
	}
}

func TestTheProxyAddressIsMadeFitForClients(t *testing.T) {
	t.Parallel()
	type answer struct{ Address, Scheme, Reason string }
	table := map[string]answer{
		"proxy.example.com":         {"proxy.example.com", "", ""},
		" Proxy.Example.com:8080/ ": {"proxy.example.com:8080", "", ""},
		"https://proxy.example.com": {"proxy.example.com", "https", ""},
		"HTTP://10.0.0.5:8080//":    {"10.0.0.5:8080", "http", ""},
		"localhost":                 {"localhost", "", ""},
		"http://localhost:8080":     {"localhost:8080", "http", ""},
		"http://mirror":             {"mirror:80", "http", ""}, // else it would be a user on Docker Hub
		"https://mirror":            {"mirror:443", "https", ""},
		"mirror:8080":               {"mirror:8080", "", ""},
		"mirror":                    {Reason: "error.proxyShort"},
		"":                          {Reason: "error.proxyEmpty"},
		"https://":                  {Reason: "error.proxyEmpty"},
		"http://[::1]:8080":         {Reason: "error.proxy6"},
		"proxy.example.com/x":       {Reason: "error.proxy"},
		"user@proxy.example.com":    {Reason: "error.proxy"},
		"proxy.example.com:0":       {Reason: "error.proxy"},
		"proxy.example.com:123456":  {Reason: "error.proxy"},
		"a b":                       {Reason: "error.proxy"},
		"$(id).example.com":         {Reason: "error.proxy"},
		"-a.example.com":            {Reason: "error.proxy"},
		"a.example.com\nb":          {Reason: "error.proxy"},
	}
	got := make(map[string]answer)
	runNode(t, `
import { readFileSync } from "node:fs";
import { proxyAddress } from "./reference.js";
const got = {};
for (const text of Object.keys(JSON.parse(readFileSync(0, "utf8")))) {
  const { address = "", scheme = "", error } = proxyAddress(text);
  got[text] = { Address: address, Scheme: scheme, Reason: error?.key ?? "" };
}
console.log(JSON.stringify(got));
`, table, &got)
	for text, want := range table {
		if !reflect.DeepEqual(got[text], want) {
			t.Errorf("%q: got %+v, want %+v", text, got[text], want)
		}
	}
}

func TestNoCommandHasACharacterThatAShellInterprets(t *testing.T) {
	t.Parallel()
	rounds := 60_000
	if testing.Short() {
		rounds /= 10
	}
	var got struct {
		Bad      []string
		Commands int
	}
	// The seed is fixed, so the texts are the same each time. Half of them are good
	// references with something nasty put in.
	runNode(t, `
import { readFileSync } from "node:fs";
import { proxyAddress, rewrite, tools } from "./reference.js";
const { Good: good, Rounds: rounds } = JSON.parse(readFileSync(0, "utf8"));
let seed = 42;
const below = (n) => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) % 65536 % n;
const nasty = ["$(id)", "\x60id\x60", ";", "|", "&", ">", "<", "\n", "\r", "\0", "\\", "'", '"', "*", "?", "[", "]", "{", "}", "~",
  "!", "#", "%", "^", "(", ")", "=", "+", ",", " ", "\t", "\u2028", "\u00a0", "é", "-", "--x", "@", ":", "/", "//", "..", "A", "_", "."];
const pick = (list) => list[below(list.length)];
const plain = /^[A-Za-z0-9._:\/@ -]+$/;
const option = / -(?!-platform |-quiet |-all-tags |-version |-override-os |-override-arch |-override-variant |-namespace |-context |n |r |q |a )/;
const bad = [];
let commands = 0;
for (let i = 0; i < rounds; i++) {
  let text = i % 2 ? pick(good) : Array.from({ length: below(12) }, () => pick(["a", "b1", "ghcr.io", "x:1"])).join("/");
  for (let n = below(3); n >= 0; n--) {
    const at = below(text.length + 1);
    text = text.slice(0, at) + pick(nasty) + text.slice(at);
  }
  const address = proxyAddress(i % 3 ? "p:80" : text).address ?? "q:80";
  const aliases = { "localhost:5000": text, [text]: pick(nasty) };
  const got = rewrite(text, { tool: i % 5 ? pick(tools) : text, proxy: address, aliases, defaultRegistry: "registry-1.docker.io" });
  if (got.steps) commands++;
  for (const n of got.names ?? []) if (!plain.test(n)) bad.push(text + " -> " + n);
  for (const s of got.steps ?? []) if (!plain.test(s.replace(/ --version [\w.+-]+$/, "")) || option.test(s)) bad.push(text + " -> " + s);
}
console.log(JSON.stringify({ Bad: bad.slice(0, 10), Commands: commands }));
`, struct {
		Good   []string
		Rounds int
	}{texts(), rounds}, &got)
	for _, b := range got.Bad {
		t.Errorf("%q", b)
	}
	if got.Commands < rounds/60 {
		t.Errorf("only %d of %d texts became a command, so the test says little", got.Commands, rounds)
	}
}

// texts returns all texts that the table pastes.
func texts() []string {
	list := make([]string, 0, len(rewritings))
	for _, r := range rewritings {
		list = append(list, r.Text)
	}
	return list
}
