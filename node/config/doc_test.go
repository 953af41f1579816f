package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

const (
	configDoc  = "../../docs/config.md"
	tableBegin = "<!-- keys: written by go test ./node/config -run TestConfigDoc -update -->\n"
	tableEnd   = "<!-- end of keys -->\n"
)

var update = flag.Bool("update", false, "write the tables of keys into docs/config.md")

// The tables in docs/config.md are generated from the tables of keys in the code.
func TestConfigDoc(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(configDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(doc), tableBegin)
	_, after, ended := strings.Cut(rest, tableEnd)
	if !begun || !ended {
		t.Fatalf("%s lacks the marks %q and %q", configDoc, tableBegin, tableEnd)
	}
	want := before + tableBegin + keyTables() + tableEnd + after
	if want == string(doc) {
		return
	}
	if !*update {
		t.Fatalf("%s differs from the keys in the code; run: go test ./node/config -run TestConfigDoc -update", configDoc)
	}
	if err := os.WriteFile(configDoc, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
}

// keyTables returns a table of keys for each section of the file.
func keyTables() string {
	var out strings.Builder
	fmt.Fprintf(&out, "\nThese need a restart: `%s`, and sections that come or go. All other keys take effect at a reload.\n", strings.Join(restarts, "`, `"))
	section := "none yet"
	for _, k := range Keys() {
		if s := sectionOf(k.Path); s != section {
			section = s
			fmt.Fprintf(&out, "\n### %s\n\n| key | type | default | meaning |\n|---|---|---|---|\n", headline(section))
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", k.Path, k.Type, quoted(k.Default), k.Doc)
	}
	out.WriteString("\n")
	return out.String()
}

// sectionOf returns the section that a key's table belongs to.
func sectionOf(path string) string {
	first, _, _ := strings.Cut(path, ".")
	switch first {
	case "defaults", "registries", "cluster", "archive":
		return first
	default:
		return ""
	}
}

// headline returns the title of a section's table.
func headline(section string) string {
	switch section {
	case "defaults":
		return "`defaults`: every registry that does not say otherwise"
	case "registries":
		return "`registries`: one section per registry"
	case "cluster":
		return "`cluster`: a mesh of nodes; leave it out for a node on its own"
	case "archive":
		return "`archive`: a bucket as a cold tier; leave it out for none"
	default:
		return "The node and its clients"
	}
}

// quoted returns a default as code, unless it is empty or a remark.
func quoted(preset string) string {
	if preset == "" || strings.Contains(preset, " ") {
		return preset
	}
	return "`" + preset + "`"
}
