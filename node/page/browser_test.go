package page

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// chromium returns the browser's path.
func chromium(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("short: no browser is started")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("no Chromium is installed: the page is not opened in a browser")
	return ""
}

// open loads address in a headless browser. It returns the resulting document, and
// the browser's log with its console.
func open(t *testing.T, address string) (document, log string) {
	t.Helper()
	browser := chromium(t)
	// This is not t.TempDir because a late child of the browser may still write to it.
	profile, err := os.MkdirTemp("", "page-profile-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(profile) }()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-dev-shm-usage", "--enable-logging=stderr", "--lang=en-US",
		"--virtual-time-budget=5000", "--user-data-dir="+profile, "--dump-dom", address)
	cmd.WaitDelay = 5 * time.Second // the browser's helpers may hold the pipes open
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", browser, err, stderr.String())
	}
	return stdout.String(), stderr.String()
}

// inner returns the text in the element with the id.
func inner(t *testing.T, document, element, id string) string {
	t.Helper()
	m := regexp.MustCompile(`(?s)<` + element + `(?:\s[^>]*)?\sid="` + id + `"[^>]*>(.*?)</` + element + `>`).FindStringSubmatch(document)
	if m == nil {
		t.Fatalf("no <%s id=%s> in:\n%s", element, id, document)
	}
	return html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(m[1], ""))
}

// complaints returns the lines of the console, and those about the policy.
func complaints(log string) []string {
	var found []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "CONSOLE") || strings.Contains(line, "Content Security Policy") {
			found = append(found, line)
		}
	}
	return found
}

func TestABrowserRendersTheCommandWithoutBreakingThePolicy(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(New("https://mirror.example.com", "", nil))
	t.Cleanup(server.Close)
	document, log := open(t, server.URL+"/?image=ghcr.io/a/b:1")
	want := full("docker", "mirror.example.com/ghcr.io/a/b:1", "ghcr.io/a/b:1")
	if got := inner(t, document, "code", "command"); got != want {
		t.Errorf("the command is %q, want %q", got, want)
	}
	if !strings.Contains(document, `<html lang="en"`) {
		t.Error("the language is not English")
	}
	if found := complaints(log); found != nil {
		t.Errorf("the browser complains: %q", found)
	}
}

func TestABrowserShowsChineseTheChosenToolAndItsOwnAddress(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(New("", "", map[string]string{"localhost:5000": "local"}))
	t.Cleanup(server.Close)
	document, log := open(t, server.URL+"/?image=localhost:5000/x@"+pinned+"&tool=podman&lang=zh")
	want := "podman pull " + strings.TrimPrefix(server.URL, "http://") + "/local/x@" + pinned
	if got := inner(t, document, "code", "command"); got != want {
		t.Errorf("the command is %q, want %q", got, want)
	}
	if !strings.Contains(document, `<html lang="zh-CN"`) || !strings.Contains(document, "<title>"+words(t, "pull")["zh"]["title"]) {
		t.Error("the page is not Chinese")
	}
	notes := inner(t, document, "ul", "notes")
	if !strings.Contains(notes, "podman 不能把摘要用作标签") || !strings.Contains(notes, "localhost:5000 写作 local") {
		t.Errorf("the notes are %q", notes)
	}
	if found := complaints(log); found != nil {
		t.Errorf("the browser complains: %q", found)
	}
}

func TestABrowserTreatsAHostileImageAsText(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(New("", "", nil))
	t.Cleanup(server.Close)
	document, log := open(t, server.URL+"/?image=%3Cimg%20src=x%20onerror=alert(1)%3E&tool=%22%3E%3Cscript%3E&lang=constructor")
	if got := inner(t, document, "code", "command"); got != "" {
		t.Errorf("the command is %q", got)
	}
	if got := inner(t, document, "p", "image-error"); got != strings.ReplaceAll(words(t, "pull")["en"]["error.words"], "{at}", "src=x onerror=alert(1)>") {
		t.Errorf("the reason is %q", got)
	}
	if found := complaints(log); found != nil {
		t.Errorf("the browser complains: %q", found)
	}
}

// drive is a script in the page. It does what a person does, and writes down what the
// page shows.
const drive = `
const byID = (id) => document.getElementById(id);
const seen = [];
const see = (what, value) => seen.push(what + "=" + value);
const type = (field, text) => { field.value = text; field.dispatchEvent(new Event("input", { bubbles: true })); };
const settle = () => new Promise((done) => setTimeout(done, 50));
let copied = [];
Object.defineProperty(navigator, "clipboard", { configurable: true, value: { writeText: async (text) => { copied.push(text); } } });

see("copy disabled", byID("copy").disabled);
type(byID("image"), "podman pull quay.io/a/b:2");
see("tool", document.querySelector("input[name=tool]:checked").value);
see("command", byID("command").textContent);
document.querySelector("input[value=nerdctl]").click();
see("other tool", byID("command").textContent);
type(byID("proxy"), "other.example.com");
see("other proxy", byID("command").textContent);
byID("copy").click(); await settle();
see("copied", copied.join() + "/" + byID("copied").textContent);
Object.defineProperty(navigator, "clipboard", { configurable: true, value: undefined });
document.execCommand = () => { copied = [document.activeElement.value]; return true; };
byID("copy").click(); await settle();
see("copied the old way", copied.join() + "/" + byID("copied").textContent + "/" + document.querySelectorAll("textarea.offscreen").length);
document.execCommand = () => false;
byID("copy").click(); await settle();
see("not copied", byID("copied").textContent + "/" + (getSelection().toString().replace(/\s+/g, " ").trim() === byID("command").textContent));
document.querySelector("[data-language=zh]").click();
see("language", document.documentElement.lang + "/" + localStorage.getItem("language") + "/" + document.querySelector("[data-language=zh]").getAttribute("aria-pressed"));
type(byID("image"), "Nginx");
see("refused", byID("image-error").textContent + "/" + byID("image").getAttribute("aria-invalid") + "/" + byID("copy").disabled + "/" + byID("command").textContent);
byID("proxy-reset").click();
see("reset", byID("proxy").value === location.host);
const result = document.createElement("output");
result.id = "seen";
result.textContent = seen.join("\n");
document.body.append(result);
`

func TestAPersonCanTypeChooseAndCopy(t *testing.T) {
	t.Parallel()
	page := New("", "", nil)
	index, err := web.ReadFile("web/index.html")
	if err != nil {
		t.Fatal(err)
	}
	driven := strings.Replace(string(render(string(index), "", "", nil)), "</head>", `<script type="module" src="drive.js"></script></head>`, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Security-Policy", policy)
			w.Header().Set("Content-Type", types[".html"])
			fmt.Fprint(w, driven)
		case "/drive.js":
			w.Header().Set("Content-Type", types[".js"])
			fmt.Fprint(w, drive)
		default:
			page.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	document, log := open(t, server.URL+"/?lang=en")
	host := strings.TrimPrefix(server.URL, "http://")
	elsewhere := full("nerdctl", "other.example.com/quay.io/a/b:2", "quay.io/a/b:2")
	en, zh := words(t, "shell")["en"], words(t, "pull")["zh"]
	want := strings.Join([]string{
		"copy disabled=true",
		"tool=podman",
		"command=" + full("podman", host+"/quay.io/a/b:2", "quay.io/a/b:2"),
		"other tool=" + full("nerdctl", host+"/quay.io/a/b:2", "quay.io/a/b:2"),
		"other proxy=" + elsewhere,
		"copied=" + elsewhere + "/" + en["copied"],
		"copied the old way=" + elsewhere + "/" + en["copied"] + "/0",
		"not copied=" + en["copy.failed"] + "/true",
		"language=zh-CN/zh/true",
		"refused=" + strings.NewReplacer("{at}", "Nginx", "{fix}", "nginx").Replace(zh["error.upper"]) + "/true/true/",
		"reset=true",
	}, "\n")
	if got := inner(t, document, "output", "seen"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if found := complaints(log); found != nil {
		t.Errorf("the browser complains: %q", found)
	}
}

func TestTheBrowsersComplaintsWouldBeSeen(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("Content-Type", types[".html"])
		fmt.Fprint(w, `<!doctype html><title>x</title><script>document.title = "ran"</script>`)
	}))
	t.Cleanup(server.Close)
	document, log := open(t, server.URL+"/")
	if complaints(log) == nil || strings.Contains(document, "<title>ran") {
		t.Errorf("an inline script went unnoticed:\n%s\n%s", document, log)
	}
}
