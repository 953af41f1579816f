package config

import (
	"fmt"
	"strings"
	"testing"

	"oci-proxy/transfer/testkit"
)

// The tables in docs/config.md are generated from the tables of keys in the code.
func TestConfigDoc(t *testing.T) {
	t.Parallel()
	testkit.Document(t, "../../docs/config.md", "keys", keyTables())
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
