package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// told is what a node tells in the tests of the views: a cluster with all that can be wrong.
var told = map[string]string{
	"_/cluster": `{"ring":"r1","missing":[{"name":"node-d","reason":"<b>timeout</b>"}],"members":[
		{"id":"1","name":"node-a","gossip":"10.0.0.1:7946","state":"active","since":"2026-01-01T00:00:00Z","share":0.5,"version":"1.0","zone":"z1","self":true,"healthy":true,
		 "stats":{"ring":"r1","max_size":1000,"registries":{"ghcr.io":{"CurrentSize":250},"quay.io":{"CurrentSize":500}},"pulls":3,"hour":{"end":9,"minutes":[[1,1048576],[],[2,0,1048576,1048576]]}}},
		{"id":"2","name":"node-b","gossip":"10.0.0.2:7946","state":"active","share":0.25,"version":"1.1","healthy":false,"old_secret":true,"since":"2026-01-01T00:00:00Z",
		 "stats":{"ring":"r2","max_size":0,"registries":{},"reasons":["disk_full"]}},
		{"id":"3","name":"node-c","gossip":"10.0.0.3:7946","state":"down","share":0.25,"version":"1.1","healthy":false,"since":"2026-01-01T00:00:00Z"},
		{"id":"4","name":"node-d","gossip":"10.0.0.4:7946","state":"draining","share":0,"version":"1.1","healthy":true,"since":"2026-01-01T00:00:00Z"}]}`,
	"_/stats": `{"docker.io":{"Hits":6,"PeerHits":2,"Misses":2,"HitBytes":3145728,"PeerHitBytes":1048576,"MissBytes":1048576,"FromUpstreamBytes":1048576}}`,
	"_/images": `{"missing":[{"name":"node-d","reason":"down"}],"images":[
		{"image":"docker.io/library/nginx:1.27","registry":"registry-1.docker.io","repository":"library/nginx","tag":"1.27","digest":"` + pinned + `","platforms":["linux/amd64"],"size":2097152,"held":1048576,"used":"2026-01-01T00:00:00Z","pinned":true,"stale":true},
		{"image":"ghcr.io/a/<img src=x onerror=alert(1)>:1","digest":"` + pinned + `","platforms":[],"size":10,"held":10}]}`,
	"_/owner/" + strings.Replace(pinned, ":", "%3A", 1): `{"digest":"` + pinned + `","owner":"node-a","next":["node-b"],"holders":["node-a","node-c"],"missing":[]}`,
	"_/health": `{"status":"degraded","reasons":["disk_full"]}`,
	"_/purge": `{"image":"docker.io/library/nginx:1.27","blobs":0,"bytes":1048576}
{"done":true,"dry_run":true,"images":1,"blobs":4,"bytes":2097152}
`,
	"_/doctor": `{"node":"node-a","about":"ghcr.io","step":"dns","level":"ok","text":"140.82.121.33","took_ms":3}
{"node":"node-b","about":"ghcr.io","step":"tls","level":"error","text":"<i>unknown authority</i>","advice":"give it as ca_file","took_ms":30}
{"done":true,"failed":1,"warnings":0}
`,
}

// hourText is an hour in which something was sent in its last minute.
func hourText() string {
	list := func(last string) string { return "[" + strings.Repeat("0,", 59) + last + "]" }
	return fmt.Sprintf(`{"since":"2026-01-01T00:00:00Z","nodes":2,"known":4,"requests":%s,"hit_bytes":%s,"peer_hit_bytes":%s,"miss_bytes":%s,"from_upstream_bytes":%s,"first_byte_p50_ms":%s,"first_byte_p95_ms":%s,"whole":{"requests":5,"first_byte_p50_ms":4.2,"first_byte_p95_ms":1500}}`,
		list("5"), list("1048576"), list("0"), list("1048576"), list("0"), list("4.2"), list("1500"))
}

// eventsText is what the node tells those who watch. The answer ends, since a browser's clock in
// tests stands still while one goes on, and asks to come back much later.
func eventsText() string {
	events := "retry: 3600000\n\n"
	for _, e := range [][2]string{
		{"hello", `{"node":"node-a","version":"1.0","admin":true}`},
		{"figures", `{"time":"2026-01-01T00:00:00Z","pulls":2,"waiting":1,"downloads":1,"hit_bytes":0,"peer_hit_bytes":0,"miss_bytes":0}`},
		{"figures", `{"time":"2026-01-01T00:00:01Z","pulls":2,"waiting":1,"downloads":1,"hit_bytes":1048576,"peer_hit_bytes":0,"miss_bytes":1048576}`},
		{"upstreams", `[{"registry":"docker.io","host":"docker.io","state":"limited","since":"2026-01-01T00:00:00Z","last_error":"429 <u>slow down</u>","latency_ms":120,"rate_limit":100,"rate_remaining":7,"rate_reset":"2126-01-01T00:00:00Z"},
			{"registry":"docker.io","host":"mirror.example","state":"down","since":"2026-01-01T00:00:00Z","last_error":"no route","latency_ms":0,"rate_limit":null,"rate_remaining":null,"rate_reset":null}]`},
		{"hour", hourText()},
		{"pulls", `{"more":4,"pulls":[{"registry":"docker.io","repository":"library/nginx","digest":"` + pinned + `","kind":"blob","source":"peer","host":"node-b","done":524288,"total":1048576,"waiters":3,"since":"2026-01-01T00:00:00Z"}]}`},
	} {
		events += "event: " + e[0] + "\ndata: " + strings.ReplaceAll(strings.ReplaceAll(e[1], "\n", ""), "\t", "") + "\n\n"
	}
	return events
}

// stage is a node that tells what told has. refused are paths that need an admin.
func stage(t *testing.T, script string, refused ...string) *httptest.Server {
	t.Helper()
	return stageOf(t, told, eventsText(), script, refused...)
}

// stageOf is a node that gives those answers, and tells those events to who watches.
func stageOf(t *testing.T, told map[string]string, events, script string, refused ...string) *httptest.Server {
	t.Helper()
	page := New("https://mirror.example.com", "", nil)
	driven := strings.Replace(string(render(read(t, "index.html"), "https://mirror.example.com", "", nil)), "</head>", `<script type="module" src="drive.js"></script></head>`, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.EscapedPath(), "/")
		answer, known := told[path]
		if slices.Contains(refused, path) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"only admins"}]}`)
			return
		}
		switch {
		case path == "_/events":
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, events)
		case known:
			if strings.HasPrefix(path, "_/purge") || strings.HasPrefix(path, "_/doctor") {
				if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%s %s of type %q", r.Method, path, r.Header.Get("Content-Type"))
				}
			}
			w.Header().Set("X-Cluster-Nodes", "3/4")
			fmt.Fprint(w, answer)
		case path == "":
			w.Header().Set("Content-Security-Policy", policy)
			w.Header().Set("Content-Type", types[".html"])
			fmt.Fprint(w, driven)
		case path == "drive.js":
			w.Header().Set("Content-Type", types[".js"])
			fmt.Fprint(w, watching+script)
		default:
			page.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

// watching is the beginning of a script in the page: seen is what it writes down, until waits
// for something, and pale lists texts that stand out too little from what is behind them (WCAG
// 2.2, 1.4.3).
const watching = `
const seen = [];
const see = (what, value) => seen.push(what + "=" + String(value).replace(/\s+/g, " ").trim());
const until = async (ok) => { for (let i = 0; i < 100 && !ok(); i++) await new Promise((done) => setTimeout(done, 20)); };
const view = (name) => document.querySelector('[data-view="' + name + '"]');
const text = (name, selector) => [...view(name).querySelectorAll(selector)].map((e) => e.textContent).join(" | ");
const go = async (address, ok) => { location.hash = address; await until(ok); };
const channels = (color) => color.match(/[\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (e) => { for (; e; e = e.parentElement) { const c = channels(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0.99) return c; } return [255, 255, 255]; };
const pale = () => [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())).filter((e) => {
  const style = getComputedStyle(e);
  const [a, b] = [light(channels(e.namespaceURI.endsWith("svg") ? style.fill : style.color)), light(behind(e))].sort((x, y) => y - x);
  return e.tagName.toLowerCase() !== "title" && (a + 0.05) / (b + 0.05) < 4.5;
}).map((e) => e.className + ":" + e.textContent.slice(0, 30)).join(", ");
const wide = () => document.documentElement.scrollWidth > innerWidth;
const finish = () => { const result = document.createElement("output"); result.id = "seen"; result.textContent = seen.join("\n"); document.body.append(result); };
`

// shows fails the test unless the script saw this, and the browser complained about nothing
// but what expected names.
func shows(t *testing.T, server *httptest.Server, address, want string, expected ...string) {
	t.Helper()
	document, log := open(t, server.URL+address)
	got := regexp.MustCompile(`\d+ (month|year)s? ago|last (month|year)|in \d+ years`).ReplaceAllString(inner(t, document, "output", "seen"), sinceText)
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	for _, line := range complaints(log) {
		known := false
		for _, part := range expected {
			known = known || strings.Contains(line, part)
		}
		if !known {
			t.Errorf("the browser complains: %s", line)
		}
	}
}

func TestTheLiveViewsShowWhatTheNodeTells(t *testing.T) {
	t.Parallel()
	server := stage(t, `
await go("#/cluster?digest=`+pinned+`", () => text("cluster", ".found dd"));
see("verdict", text("cluster", ".verdict"));
see("troubles", text("cluster", ".troubles li"));
see("ring", text("cluster", ".legend li"));
see("slices", view("cluster").querySelectorAll(".ring path").length + " dim " + view("cluster").querySelectorAll(".ring path.dim").length);
see("found", text("cluster", ".found dd"));
see("first member", text("cluster", ".data tbody tr:first-child td"));
see("config", text("cluster", ".code pre").split("|")[0]);
await go("#/traffic", () => text("traffic", ".pull"));
await until(() => text("traffic", ".tile").includes("MiB/s"));
see("tiles", text("traffic", ".tile dd"));
see("pull", text("traffic", ".pull"));
see("more", text("traffic", ".panel .hint").split("|")[0]);
see("bars", view("traffic").querySelectorAll("figure rect.hit, figure rect.miss").length);
see("registries", text("traffic", ".data tbody td"));
for (const name of ["light", "dark"]) {
  document.querySelector("[data-theme=" + name + "]").click();
  for (const v of ["cluster", "traffic", "cache", "doctor"]) {
    await go("#/" + v, () => false || text(v, ".panel .body").length > 40);
    see(name + " " + v, (pale() || "legible") + (wide() ? ", too wide" : ""));
  }
}
finish();
`)
	shows(t, server, "/?lang=en", strings.Join([]string{
		"verdict=2 of 4 members answer.",
		"troubles=node-d does not answer: <b>timeout</b> | " +
			"The cluster is split in its view: node-b places content otherwise than this node. It passes by itself within seconds after a change; if it stays, the nodes do not all reach each other. | " +
			"node-b: disk_full | node-c is down. It keeps its place for two minutes; the next in the ring acts for it. | " +
			"node-b is passed over by this node because it failed. It is asked again once it answers. | node-b does not know the new secret yet. | " +
			"node-d leaves for good and hands over what only it holds. | Members run different versions: 1.0, 1.1. Finish the upgrade.",
		"ring=node-a50% | node-b25% | node-c25%",
		"slices=3 dim 1",
		"found=node-a | node-b | node-a, node-c",
		"first member=node-athis node | active" + sinceText + " | 1.0 | z1 | 50% | 750 B of 1000 B | 3.00 MiB | 3",
		`config=cluster: seeds: ["10.0.0.1:7946", "10.0.0.2:7946"] secret_file: /etc/oci-proxy/secret`,
		"tiles=2.00 MiB/s | from node-a, this second | 2 | 1 wait for their turn | 4.00 MiB | of 5.00 MiB sent since start, nodes 3/4 | 80% | 8 of 10 pulls | 4.2 ms | 95 % within 1.5 s, last hour",
		"pull=docker.io/library/nginxanother node512 KiB of 1.00 MiBone part3 wait for itfrom node-b",
		"more=and 4 more",
		"bars=2",
		"registries=docker.io | limited" + sinceText + " | 120 ms | 7 of 100 left · whole again SINCE | 429 <u>slow down</u> Examine | docker.ioby its mirror mirror.example | down" + sinceText + " | – | tells none | no route Examine",
		"light cluster=legible", "light traffic=legible", "light cache=legible", "light doctor=legible",
		"dark cluster=legible", "dark traffic=legible", "dark cache=legible", "dark doctor=legible",
	}, "\n"))
}

// sinceText stands for how long ago something was: it depends on the day of the test.
const sinceText = "SINCE"

func TestTheCacheAndTheDoctorDoAsAsked(t *testing.T) {
	t.Parallel()
	server := stage(t, `
await go("#/cache", () => text("cache", ".data td"));
see("summary", text("cache", "[role=status]"));
see("image", text("cache", ".data tbody tr:first-child td:first-child"));
see("hostile", view("cache").querySelectorAll("img").length + " " + text("cache", ".data tbody tr:nth-child(2) .name"));
view("cache").querySelector("[aria-expanded]").click();
await until(() => text("cache", ".detail").includes("node-c"));
see("detail", text("cache", ".detail dd"));
view("cache").querySelector(".detail .danger").click();
await until(() => text("cache", ".tools .danger"));
see("dry run", text("cache", ".log li"));
see("focus", document.activeElement.textContent);
[...view("cache").querySelectorAll(".detail button")].find((b) => b.textContent === "取消固定").click();
await until(() => text("cache", ".log .bad"));
see("refused", text("cache", ".log .bad"));
const search = document.getElementById("match");
search.value = "nginx linux/amd64 pinned";
search.dispatchEvent(new Event("input"));
see("found", view("cache").querySelectorAll(".data tbody tr:not(.detail)").length);
search.value = "nothing like it";
search.dispatchEvent(new Event("input"));
see("not found", text("cache", ".nothing-title"));
await go("#/doctor?target=ghcr.io", () => text("doctor", ".troubles li"));
see("health", text("doctor", ".troubles li"));
document.getElementById("target").form.requestSubmit();
await until(() => text("doctor", ".verdict.bad"));
see("verdict", text("doctor", ".verdict.bad"));
see("groups", text("doctor", "summary"));
see("objects", document.body.textContent.includes("[object"));
finish();
`, "_/unpin")
	shows(t, server, "/?lang=zh", strings.Join([]string{
		"summary=2 个镜像中的 2 个，已保存 1.00 MiB。 没有应答：node-d。",
		"image=docker.io/library/nginx:1.27已固定陈旧",
		"hostile=0 ghcr.io/a/<img src=x onerror=alert(1)>:1",
		"detail=" + pinned + " | node-a, node-c",
		"dry run=查看清除 docker.io/library/nginx:1.27 会移除什么，不做任何更改。 | 将移除 docker.io/library/nginx:1.27，其中 1.00 MiB 不被其他镜像需要 | 合计：1 个镜像，所有节点上 4 个数据块，2.00 MiB。此操作不可撤销；仓库中仍然保留。",
		"focus=确认清除",
		"refused=您无权执行此操作：only admins",
		"found=1",
		"not found=没有匹配的镜像。",
		"health=disk_full",
		"verdict=tls 在 node-b 失败： <i>unknown authority</i>处理办法：give it as ca_file",
		"groups=ghcr.io，从 node-b 检查 （1 步） | ghcr.io，从 node-a 检查 （1 步）", "objects=false",
	}, "\n"), "403") // the browser's own line about a refused request
}

// A node on its own, of which nobody has asked anything, says what to do.
func TestEmptyViewsTeach(t *testing.T) {
	t.Parallel()
	server := stageOf(t, map[string]string{
		"_/cluster": `{"ring":"","missing":[],"members":[{"id":"x","name":"oci-proxy","state":"active","since":"2026-01-01T00:00:00Z","share":1,"version":"1.0","self":true,"healthy":true,"stats":{"max_size":0,"registries":{}}}]}`,
		"_/stats":   `{}`, "_/images": `{"images":[],"missing":[]}`,
	}, "retry: 3600000\n\nevent: hello\ndata: {\"node\":\"oci-proxy\",\"version\":\"1.0\",\"admin\":false}\n\nevent: upstreams\ndata: []\n\nevent: pulls\ndata: {\"pulls\":[],\"more\":0}\n\n", `
await go("#/cluster", () => text("cluster", ".code pre"));
see("cluster", text("cluster", ".verdict") + text("cluster", ".steps li:first-child") + text("cluster", ".code pre").split("secret_file")[0].replace(location.hostname, "HOST"));
await go("#/traffic", () => text("traffic", ".pulls, .nothing").includes("pulled") && text("traffic", ".nothing").includes("No registry"));
see("traffic", text("traffic", ".nothing-title, pre"));
await go("#/cache", () => text("cache", ".nothing pre"));
see("cache", text("cache", ".nothing-title, pre"));
see("no text", document.body.textContent.includes("[object") || document.body.textContent.includes("undefined") || document.body.textContent.includes("NaN"));
finish();
`)
	shows(t, server, "/?lang=en", strings.Join([]string{
		"cluster=This node works on its own. Nodes that form a cluster share what they hold, and ask each registry once for all of them." +
			`Two nodes or more make a cluster. Do this on each of them, this one too.cluster: seeds: ["HOST:7946"]`,
		"traffic=Loading… | Nothing was pulled yet. | docker pull mirror.example.com/docker.io/library/alpine | Loading… | No registry was asked yet.",
		"cache=Nothing is cached yet. | docker pull mirror.example.com/docker.io/library/alpine",
		"no text=false",
	}, "\n"))
}

func TestFactsOfAnswers(t *testing.T) {
	t.Parallel()
	var got map[string]any
	runNode(t, `
import { readFileSync } from "node:fs";
import { ceiling, line, slice, slices, stack } from "./chart.js";
import { byImage, disk, joinConfig, matching, served, sorted, totals, troubles } from "./facts.js";
import { readLines } from "./lines.js";
const told = JSON.parse(readFileSync(0));
const cluster = JSON.parse(told["_/cluster"]);
const answer = (...pieces) => new Response(new ReadableStream({ start(c) { for (const p of pieces) c.enqueue(new TextEncoder().encode(p)); c.close(); } }));
const lines = [];
await readLines(answer('{"a":1}\n{"b', '":"', 'ü"}\n\n{"c":3}'), (l) => lines.push(l));
const one = { members: [{ name: "x", state: "active", healthy: true, stats: { ring: "" } }], missing: [], ring: "" };
const images = [{ image: "b", digest: "sha256:1", platforms: [], size: 1 }, { image: "a", digest: "sha256:2", platforms: ["linux/arm64"], size: 2, used: "2026" }];
console.log(JSON.stringify({
  lines, well: troubles(one).length, worst: troubles(cluster).map((x) => x.level),
  served: [served(cluster.members[0].stats, 2), served(undefined, 5)], disk: disk(cluster.members[0].stats),
  join: joinConfig(one, "here"), totals: totals({}),
  byImage: byImage([{ registry: "r", repository: "a", done: 1, total: 2, waiters: 1, source: "hit" }, { registry: "r", repository: "a", done: 5, total: -1, waiters: 4, source: "miss", host: "h" }]).map((x) => [x.name, x.done, x.total, x.waiters, [...x.sources]]),
  matching: matching(images, " ARM64 2").map((x) => x.image), sorted: ["name", "size", "used"].map((o) => sorted(images, o)[0].image),
  ceiling: [0, 1, 3, 999, 1001, 1024, 1500000, 7e12].map(ceiling), slices: slices([0.25, 0.75]),
  whole: slice(0, 1, 10, 5).includes("NaN"), stack: stack([[1, 0], [3, 0]], 4, 100), line: line([0, 2, 0, 4], 4, 40, 100), flat: stack([[0]], 0, 9),
}));
`, told, &got)
	var want map[string]any
	if err := json.Unmarshal([]byte(`{
		"lines": [{"a":1},{"b":"ü"},{"c":3}], "well": 0, "worst": ["bad","bad","bad","bad","warn","warn","warn","warn"],
		"served": [2097152, 0], "disk": {"used":750,"most":1000},
		"join": "cluster:\n  seeds: [\"here:7946\"]\n  secret_file: /etc/oci-proxy/secret\n", "totals": {"bytes":0,"saved":0,"pulls":0,"all":0,"ratio":0},
		"byImage": [["r/a", 6, -1, 4, ["hit","miss"]]], "matching": ["a"], "sorted": ["a","a","a"],
		"ceiling": [1, 1, 5, 1000, 1024, 1024, 2097152, 10995116277760], "slices": [{"from":0,"to":0.25},{"from":0.25,"to":1}],
		"whole": false, "stack": [[{"series":0,"y":75,"height":25},{"series":1,"y":0,"height":75}],[{"series":0,"y":100,"height":0},{"series":1,"y":100,"height":0}]],
		"line": "M15 50M35 0", "flat": [[{"series":0,"y":9,"height":0}]]
	}`), &want); err != nil {
		t.Fatal(err)
	}
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("%s is %v, want %v", name, got[name], want[name])
		}
	}
}
