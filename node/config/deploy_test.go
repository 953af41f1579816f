package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

const deployed = "../../deploy/config.yaml"

func TestDeployedConfigEqualsTheDefaults(t *testing.T) {
	t.Parallel()
	c, err := Load(deployed, nil)
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.TrustedProxies, c.AllowedHosts, c.Auth.AnonymousFrom, c.Auth.Admins, c.AllowAddresses = nil, nil, nil, nil, nil // [] where the default is nil
	if !reflect.DeepEqual(c, defaults) {
		t.Errorf("got  %+v\nwant %+v", c, defaults)
	}
}

// example matches the commented examples. Unlike prose, they have no space after
// the #, or more than one.
var example = regexp.MustCompile(`(?m)^#((  |[a-z]).*)?$`)

func TestDeployedConfigMentionsEveryKeyWithItsDefault(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(deployed)
	if err != nil {
		t.Fatal(err)
	}
	whole := example.ReplaceAllString(string(text), "$1")
	c := must(t, whole, "REGISTRY_PASSWORD=pw", "CLUSTER_SECRET=0123456789abcdef")
	if c.Cluster == nil || len(c.Registries) != 2 {
		t.Fatalf("the examples are no longer found: %+v", c)
	}
	said := map[string]string{}
	flatten(decode(&report{places: map[string]place{}}, []byte(whole)), "", said)
	exempt := map[string]bool{"registries.<host>.auth.username": true, "registries.<host>.auth.password": true, "cluster.secret": true, "archive.endpoint": true, "archive.bucket": true, "registries.<host>.private": true}
	for _, k := range Keys() {
		got, mentioned := said[strings.ReplaceAll(k.Path, "<host>", "registry.example.com")]
		want := k.Default
		if want == "as in defaults" {
			want = said["defaults."+strings.TrimPrefix(k.Path, "registries.<host>.")]
		}
		if !mentioned || got != want && !exempt[k.Path] {
			t.Errorf("%s: mentioned %t as %q, the default is %q", k.Path, mentioned, got, want)
		}
	}
}

// flatten stores each value of n in into, under its path.
func flatten(n *node, path string, into map[string]string) {
	switch n.shape {
	case mapping:
		for _, p := range n.pairs {
			flatten(p.value, join(path, p.key), into)
		}
	case list:
		into[path] = "[]"
	default:
		into[path] = n.text
	}
}

func TestEveryKeyIsDescribed(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, k := range Keys() {
		if seen[k.Path] || k.Type == "" || !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%+v: it is there twice, or lacks a type or a sentence", k)
		}
		seen[k.Path] = true
	}
	for _, path := range []string{"port", "auth.password_file", "defaults.cache_dir", "registries.<host>.cache_dir", "registries.<host>.mirrors", "cluster.egress"} {
		if !seen[path] {
			t.Errorf("%s is missing", path)
		}
	}
	if seen["defaults.tag_ttl"] || seen["cluster"] {
		t.Error("sections and keys that cannot be set are listed")
	}
}
