package page

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A fake node answers what the page asks, by path. Everything else under /_/ is 404.
type fakeNode map[string]string

// serve serves the page with a script in it that does what a person does, in front of
// the fake node. The script writes down what it sees by see(what, value).
func (f fakeNode) serve(t *testing.T, script string) string {
	t.Helper()
	h := New("", "", nil)
	page := strings.Replace(body(t, ask(h, http.MethodGet, "/")), "</head>", `<script type="module" src="drive.js"></script></head>`, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch answer, known := f[r.URL.Path]; {
		case r.URL.Path == "/":
			w.Header().Set("Content-Security-Policy", policy)
			w.Header().Set("Content-Type", types[".html"])
			fmt.Fprint(w, page)
		case r.URL.Path == "/drive.js":
			w.Header().Set("Content-Type", types[".js"])
			fmt.Fprint(w, before+script+after)
		case known:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, answer)
		default:
			h.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

const (
	before = `
const byID = (id) => document.getElementById(id);
const seen = [];
const see = (what, value) => seen.push(what + "=" + value);
const until = async (done) => { for (let i = 0; i < 200 && !done(); i++) await new Promise((next) => setTimeout(next, 20)); };
const shown = () => [...document.querySelectorAll("[data-view]")].filter((s) => !s.hidden).map((s) => s.dataset.view).join();
`
	after = `
const result = document.createElement("output");
result.id = "seen";
result.textContent = seen.join("\n");
document.body.append(result);
`
)

// drives opens an address of a page that serve serves, and compares what was seen.
func drives(t *testing.T, address string, want ...string) {
	t.Helper()
	document, log := open(t, address)
	if got := inner(t, document, "output", "seen"); got != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
	for _, complaint := range complaints(log) {
		if !strings.Contains(complaint, "404") { // of what the fake node does not have
			t.Errorf("the browser complains: %s", complaint)
		}
	}
}

func TestEachViewHasAnAddressATitleAndTheFocus(t *testing.T) {
	t.Parallel()
	address := fakeNode{}.serve(t, `
see("at first", shown() + "/" + document.title);
for (const a of [...document.querySelectorAll(".views a")].reverse()) {
  const view = a.hash.slice(2);
  a.click();
  await until(() => shown() === view);
  see(view, shown() + "/" + document.title + "/" + document.activeElement.id + "/" + [...document.querySelectorAll(".views [aria-current=page]")].map((c) => c.hash));
}
location.hash = "#/nowhere";
await until(() => false || location.hash === "#/nowhere");
see("an unknown one", shown());
document.querySelector(".skip").click();
see("skipped", location.hash + "/" + document.activeElement.id);
document.querySelector("[data-theme=dark]").click();
see("dark", localStorage.getItem("theme") + "/" + getComputedStyle(document.documentElement).colorScheme + "/" + document.querySelector("[data-theme=dark]").getAttribute("aria-pressed"));
document.querySelector("[data-theme=light]").click();
see("light", getComputedStyle(document.documentElement).colorScheme);
const named = (e) => e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim();
see("without a label", [...document.querySelectorAll("input, textarea, select, button, a")].filter((e) => !named(e)).map((e) => e.outerHTML).join());
`)
	want := []string{"at first=doctor/" + words(t, "doctor")["zh"]["title"] + " · OCI-Proxy"}
	for _, view := range []string{"doctor", "cache", "traffic", "cluster", "setup", "pull"} {
		want = append(want, fmt.Sprintf("%[1]s=%[1]s/%[2]s · OCI-Proxy/%[1]s-title/#/%[1]s", view, words(t, view)["zh"]["title"]))
	}
	want[1] = strings.Replace(want[1], "/doctor-title/", "//", 1) // it is shown already, so the focus stays
	want = append(want, "an unknown one=pull", "skipped=#/nowhere/pull-title", "dark=dark/dark/true", "light=light", "without a label=")
	drives(t, address+"/?lang=zh#/doctor", want...)
}

func TestTheSetUpViewShowsTheNodesFiles(t *testing.T) {
	t.Parallel()
	address := fakeNode{"/_/setup/podman": `{"client":"podman","endpoint":"http://p:80","command":"curl -fsS http://p:80/_/setup/podman | sh","restart":"","notes":["a <b>note</b>"],
		"files":[{"path":"/etc/containers/registries.conf.d/x.conf","content":"[[registry]]\n","merge":true,"note":""}]}`}.serve(t, `
let copied = "";
Object.defineProperty(navigator, "clipboard", { configurable: true, value: { writeText: async (text) => { copied = text; } } });
const body = byID("setup-body");
await until(() => body.querySelector("pre"));
see("texts", [...body.querySelectorAll("code")].map((c) => c.textContent.trim()).join(" ; "));
see("names", [...body.querySelectorAll("h3")].map((c) => c.textContent).join(" ; "));
see("notes", [...body.querySelectorAll(".notes li")].map((c) => c.textContent).join());
body.querySelector("button").click();
await until(() => body.querySelector(".copied").textContent);
see("copied", copied + "/" + body.querySelector(".copied").textContent);
see("chosen", document.querySelector(".choices [aria-current]").textContent);
document.querySelectorAll(".choices a")[4].click();
await until(() => body.querySelector(".error"));
see("missing", location.hash + "/" + body.querySelector(".error").textContent);
`)
	en := words(t, "setup")["en"]
	line := "curl -fsS http://p:80/_/setup/podman | sh"
	drives(t, address+"/?lang=en#/setup?client=podman",
		"texts="+line+" ; "+line+" -s -- -n ; "+line+" -s -- -undo ; [[registry]]",
		"names=Command ; Dry run ; Undo ; /etc/containers/registries.conf.d/x.conf",
		"notes=a <b>note</b>",
		"copied="+line+"/Copied",
		"chosen=podman",
		"missing=#/setup?client=k3s/"+strings.ReplaceAll(en["missing"], "{client}", "k3s"),
	)
}

func TestThePullViewShowsADiffAndWhatTheNodeSays(t *testing.T) {
	t.Parallel()
	address := fakeNode{"/_/image": `{"auth":true,"login":false,"user":"bob","names":[
		{"name":"nginx:1","image":"docker.io/library/nginx:1","cached":[{"digest":"sha256:0","platforms":["linux/amd64","linux/arm64"],"size":3000,"held":1500}],"without_login":{"why":"login","reason":"x"}},
		{"name":"ghcr.io/a/b","image":"ghcr.io/a/b:latest","refused":{"why":"whitelist","reason":"<i>not</i> listed"}}]}`}.serve(t, `
const image = byID("image");
image.value = "FROM nginx:1 AS x\nRUN true\nFROM ghcr.io/a/b\nFROM Bad\nCOPY --from=x / /\n";
image.dispatchEvent(new Event("input", { bubbles: true }));
see("diff", [...byID("diff").querySelectorAll(".old, .new")].map((l) => l.textContent.replaceAll(location.host, "p")).join(" ; "));
see("refusals", byID("refusals").textContent);
see("no command", byID("result").hidden);
await until(() => byID("about").querySelector("td"));
see("about", [...byID("about").querySelectorAll("tbody tr")].map((r) => [...r.children].map((c) => c.textContent).join(" | ")).join(" ; "));
see("why", [...byID("about").querySelectorAll("li")].map((l) => l.textContent).join(" ; "));
document.querySelector("[data-sample=compose]").click();
see("compose", byID("rewritten").hidden + "/" + byID("diff").querySelectorAll(".new").length + "/" + byID("refusals").children.length);
image.value = "nginx";
image.dispatchEvent(new Event("input", { bubbles: true }));
see("name", byID("rewritten").hidden + "/" + byID("result").hidden);
`)
	zh := words(t, "pull")["zh"]
	fill := func(key string, values ...string) string { return strings.NewReplacer(values...).Replace(zh[key]) }
	drives(t, address+"/?lang=zh#/pull",
		"diff=-FROM nginx:1 AS x ; +FROM p/nginx:1 AS x ; -FROM ghcr.io/a/b ; +FROM p/ghcr.io/a/b",
		"refusals="+fill("line", "{line}", "4", "{reason}", fill("error.upper", "{at}", "Bad", "{fix}", "bad")),
		"no command=true",
		"about=docker.io/library/nginx:1 | "+zh["about.ok"]+" | linux/amd64, linux/arm64 | 2.93 KiB | "+fill("about.share", "{percent}", "50 %", "{size}", "2.93 KiB")+
			" ; ghcr.io/a/b:latest | "+zh["about.refused"]+" | – | – | "+zh["about.none"],
		"why=docker.io/library/nginx:1: "+fill("about.anonymous", "{reason}", zh["about.needsLogin"])+" ; ghcr.io/a/b:latest: <i>not</i> listed",
		"compose=false/2/1",
		"name=true/false",
	)
}
