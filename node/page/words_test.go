package page

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tables are the tables of words: the shell's, and one for each view.
var tables = []string{"shell", "pull", "setup", "cluster", "traffic", "cache", "doctor"}

// saidBy are the files that take their sentences from each table, beside index.html.
var saidBy = map[string][]string{
	"shell": {"app.js", "ask.js", "pull.js", "setup.js", "cluster.js", "traffic.js", "cache.js", "doctor.js"},
	"pull": {
		"pull.js", "about.js", "reference.js", "names.js", "addresses.js", "commands.js", "options.js", "steps.js", "edits.js", "dockerfile.js", "yaml.js",
	},
	"setup":   {"setup.js"},
	"cluster": {"cluster.js", "facts.js", "parts.js"}, "traffic": {"traffic.js", "parts.js"}, "cache": {"cache.js"}, "doctor": {"doctor.js"},
}

// read is the text of one of the page's files.
func read(t *testing.T, name string) string {
	t.Helper()
	content, err := web.ReadFile("web/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// words reads the strict JSON in words-TABLE.js: sentences by language and key.
func words(t *testing.T, table string) map[string]map[string]string {
	t.Helper()
	_, text, _ := strings.Cut(read(t, "words-"+table+".js"), "export const words = ")
	text, _, _ = strings.Cut(text, "};\n")
	var got map[string]map[string]string
	if err := json.Unmarshal([]byte(text+"}"), &got); err != nil {
		t.Fatalf("the words of %s are not JSON: %v", table, err)
	}
	return got
}

func TestEachSentenceExistsInBothLanguagesWithTheSameValues(t *testing.T) {
	t.Parallel()
	values := func(s string) []string {
		return slices.Sorted(slices.Values(regexp.MustCompile(`\{\w+\}`).FindAllString(s, -1)))
	}
	for _, table := range tables {
		all := words(t, table)
		if len(all) != 2 || !slices.Equal(slices.Sorted(maps.Keys(all["en"])), slices.Sorted(maps.Keys(all["zh"]))) {
			t.Errorf("%s: the languages have different keys", table)
		}
		for key, en := range all["en"] {
			zh := all["zh"][key]
			if en == "" || zh == "" {
				t.Errorf("%s/%s: a language is missing", table, key)
			}
			if !slices.Equal(values(en), values(zh)) {
				t.Errorf("%s/%s: %v in English, %v in Chinese", table, key, values(en), values(zh))
			}
			if !regexp.MustCompile(`\p{Han}`).MatchString(zh) {
				t.Errorf("%s/%s: %q is not Chinese", table, key, zh)
			}
		}
	}
}

// A use is how a script names a key: whole, or the beginning of several.
type use struct {
	key   string
	whole bool
}

// uses returns the keys that a script names: t("key"), t("begin." + x), a Refusal's
// and a note's of reference.js, and a Problem's of ask.js.
func uses(script string) (all []use) {
	for _, m := range regexp.MustCompile(`\b(t|refuse|note|say|skip|new Problem)\(\s*(?:[\w.]+, )?"([^"]+)"( \+)?`).FindAllStringSubmatch(script, -1) {
		begin := map[string]string{"refuse": "error.", "skip": "error.", "note": "note.", "new Problem": "problem."}[m[1]]
		all = append(all, use{begin + m[2], m[3] == ""})
	}
	// t(done ? "copied" : "copy.failed")
	for _, m := range regexp.MustCompile(`\bt\([^"()]*\? "([^"]+)" : "([^"]+)"`).FindAllStringSubmatch(script, -1) {
		all = append(all, use{m[1], true}, use{m[2], true})
	}
	return all
}

func TestEachUsedKeyHasASentenceAndEachSentenceIsUsed(t *testing.T) {
	t.Parallel()
	used := map[string]bool{} // those of the shell that are there for any view, too
	for _, key := range []string{"problem.login", "problem.denied", "problem.missing", "problem.other", "loading", "download"} {
		used["shell/"+key] = true
	}
	sentence := map[string]bool{}
	for _, table := range tables {
		for key := range words(t, table)["en"] {
			sentence[table+"/"+key] = true
		}
		used[table+"/title"] = true // the document's
	}
	for _, m := range regexp.MustCompile(`data-i18n(?:-label|-placeholder)?="([^"]+)"`).FindAllStringSubmatch(read(t, "index.html"), -1) {
		used[m[1]] = true
		if !sentence[m[1]] {
			t.Errorf("index.html: %s has no sentence", m[1])
		}
	}
	for table, scripts := range saidBy {
		for _, script := range scripts {
			spoken(used, sentence, table, read(t, script))
			for _, u := range uses(read(t, script)) {
				found := mark(used, sentence, table, u)
				if !found && table != "shell" && !mark(used, sentence, "shell", u) {
					t.Errorf("%s: %s has no sentence", script, u.key)
				}
			}
		}
	}
	for key := range sentence {
		if !used[key] {
			t.Errorf("%s is never used", key)
		}
	}
}

// spoken marks the sentences of a table whose keys, or the beginnings of them before a plus,
// stand in a script by themselves: in a list, or as what a function of parts.js is given.
func spoken(used, sentence map[string]bool, table, script string) {
	for _, m := range regexp.MustCompile(`"([a-z0-9.]+)"( \+)?`).FindAllStringSubmatch(script, -1) {
		mark(used, sentence, table, use{m[1], m[2] == ""})
	}
}

// mark marks the sentences of a table that a use names, and reports whether there are any.
func mark(used, sentence map[string]bool, table string, u use) (found bool) {
	for key := range sentence {
		name, ok := strings.CutPrefix(key, table+"/")
		if ok && (name == u.key || !u.whole && strings.HasPrefix(name, u.key)) {
			used[key], found = true, true
		}
	}
	return found
}

func TestThePageBeginsWithTheEnglishSentences(t *testing.T) {
	t.Parallel()
	page := body(t, ask(New("", "", nil), http.MethodGet, "/"))
	for _, m := range regexp.MustCompile(`data-i18n="([^"/]+)/([^"]+)"[^>]*>([^<]*)<`).FindAllStringSubmatch(page, -1) {
		if en := words(t, m[1])["en"][m[2]]; en != m[3] {
			t.Errorf("%s/%s: the page says %q, the table %q", m[1], m[2], m[3], en)
		}
	}
	if !strings.Contains(page, "<noscript>") {
		t.Error("the page says nothing to visitors without JavaScript")
	}
}

func TestEachViewHasItsSectionItsLinkAndItsTitle(t *testing.T) {
	t.Parallel()
	page := read(t, "index.html")
	for _, view := range tables[1:] {
		for _, want := range []string{
			fmt.Sprintf(`<section data-view="%[1]s" aria-labelledby="%[1]s-title"`, view),
			fmt.Sprintf(`<h1 id="%[1]s-title" tabindex="-1" data-i18n="%[1]s/title">`, view),
			fmt.Sprintf(`<li><a href="#/%[1]s" data-i18n="shell/%[1]s">`, view),
		} {
			if strings.Count(page, want) != 1 {
				t.Errorf("%s: %d of %s", view, strings.Count(page, want), want)
			}
		}
		if !regexp.MustCompile(`(?m)^export function start\(section`).MatchString(read(t, view+".js")) {
			t.Errorf("%s.js exports no start", view)
		}
	}
}
