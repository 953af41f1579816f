package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

const operations = "../../docs/operations.md"

// Each message that docs/operations.md explains is one that the code writes.
func TestDocsQuoteRealMessages(t *testing.T) {
	t.Parallel()
	code := source(t)
	quoted := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(read(t, operations), -1)
	if len(quoted) < 50 {
		t.Fatalf("%d messages are quoted; the tables are no longer found", len(quoted))
	}
	for _, m := range quoted {
		for part := range strings.SplitSeq(m[1], "…") { // … stands for what varies
			if part = strings.TrimSpace(part); part != "" && !strings.HasPrefix(part, "oci_proxy_") && !strings.Contains(code, part) {
				t.Errorf("docs/operations.md explains %q, which no code writes", part)
			}
		}
	}
}

// docs/operations.md explains each metric that a node has at its start. That it explains
// all others, and no more, is seen to by node/metrics.
func TestDocsNameEveryMetric(t *testing.T) {
	t.Parallel()
	file, addr := nodeConfig(t, upstreamtest.New(t), t.TempDir(), "")
	start(t, addr, "serve", "-c", file)
	body, err := get(t.Context(), "http://"+addr+"/_/metrics")
	if err != nil {
		t.Fatal(err)
	}
	got := names(`(?m)^# TYPE (oci_proxy_\w+)`, string(body))
	want := names("(?m)^\\| `(oci_proxy_\\w+)`", read(t, operations))
	unknown := slices.DeleteFunc(slices.Clone(got), func(name string) bool { return slices.Contains(want, name) })
	if len(got) < 20 || len(unknown) > 0 {
		t.Errorf("a node has the metrics\n%q\ndocs/operations.md does not explain\n%q", got, unknown)
	}
}

// README and docs link to files that exist.
func TestDocsLinkToFiles(t *testing.T) {
	t.Parallel()
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(docs) < 6 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	for _, doc := range append(docs, "../../README.md") {
		for _, link := range regexp.MustCompile(`\]\(([^):]+)\)`).FindAllStringSubmatch(read(t, doc), -1) {
			file, anchor, _ := strings.Cut(link[1], "#")
			target := filepath.Join(filepath.Dir(doc), file)
			if file == "" {
				target = doc
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", doc, link[1], err)
			} else if anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s links to %s: no such heading", doc, link[1])
			}
		}
	}
}

// anchors returns the anchors of a document's headings.
func anchors(doc string) []string {
	var all []string
	for _, h := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(doc, -1) {
		plain := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(h[1]), "")
		all = append(all, strings.ReplaceAll(plain, " ", "-"))
	}
	return all
}

// names returns what a pattern's group matches in text, sorted, each once.
func names(pattern, text string) []string {
	var all []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// source returns the text of all code that is not a test.
func source(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			all.WriteString(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// read returns a file's text.
func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
