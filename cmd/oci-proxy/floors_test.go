package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// floors says which of our packages each package may import. Data flows one
// way: nothing calls upwards, and rooms on one floor do not know each other.
var floors = map[string][]string{
	"cmd/oci-proxy":          {"transfer/wait", "node", "node/config", "node/image", "node/journal", "node/setup", "transfer/upstream"},
	"node":                   {"node/certs", "node/cluster", "node/config", "node/figures", "node/gate", "node/health", "node/image", "node/keeper", "node/live", "node/logins", "node/metrics", "node/page", "node/reload", "node/reply", "node/rules", "node/setup", "node/warm", "transfer", "transfer/archive", "transfer/egress", "transfer/express", "transfer/flight", "transfer/grants", "transfer/holdings", "transfer/lanes", "transfer/mesh", "transfer/mirrors", "transfer/oci", "transfer/upstream", "transfer/trace", "transfer/wait", "transfer/wire", "cache"},
	"node/certs":             {"node/health", "transfer/wait"},
	"node/cluster":           {"node/config", "node/figures", "node/health", "node/membership", "ring", "transfer/directory", "transfer/grants", "transfer/holdings", "transfer/mesh", "transfer/oci", "transfer/peer", "transfer/trace", "transfer/wait", "cache"},
	"node/figures":           {"transfer/count", "cache"},
	"node/gate":              {"node/config", "node/reload", "node/reply", "transfer/oci", "transfer/wait", "transfer/wire"},
	"node/health":            {},
	"node/image":             {},
	"node/journal":           {"transfer/oci"},
	"node/keeper":            {"transfer/grants", "transfer/holdings", "transfer/oci", "transfer/wait", "cache"},
	"node/live":              {"node/figures"},
	"node/logins":            {"node/config", "transfer/upstream", "transfer/wait"},
	"node/metrics":           {"node/figures"},
	"node/warm":              {"node/image"},
	"node/reload":            {},
	"node/rules":             {"node/config", "transfer/oci"},
	"node/reply":             {},
	"node/setup":             {},
	"node/simulator":         {"node/cluster", "node/config", "node/figures", "node/membership", "node/membership/memnet", "ring", "transfer", "transfer/feed", "transfer/grants", "transfer/oci", "cache"},
	"node/config":            {},
	"node/membership":        {"node/health", "ring", "transfer/wait"},
	"node/membership/memnet": {},
	"node/page":              {},
	"transfer":               {"transfer/count", "transfer/excerpt", "transfer/feed", "transfer/flight", "transfer/grants", "transfer/mesh", "transfer/oci", "transfer/pages", "transfer/trace", "transfer/wait", "cache"},
	"transfer/archive":       {"transfer/oci", "transfer/wait"},
	"transfer/directory":     {},
	"transfer/egress":        {"transfer/mesh", "transfer/oci", "transfer/wait"},
	"transfer/excerpt":       {"transfer/count", "transfer/grants", "transfer/mesh", "transfer/oci", "transfer/wait", "cache"},
	"transfer/express":       {"transfer/wait", "transfer/wire"},
	"transfer/flight":        {"transfer/count", "transfer/feed", "transfer/grants", "transfer/mesh", "transfer/oci", "transfer/trace", "transfer/wait", "cache"},
	"transfer/grants":        {"transfer/mesh", "transfer/oci", "transfer/pages", "transfer/wait", "cache"},
	"transfer/pages":         {"transfer/oci", "transfer/wait", "cache"},
	"transfer/peer":          {"transfer/mesh", "transfer/oci", "transfer/wire", "transfer/trace", "transfer/wait"},
	"transfer/mirrors":       {"transfer/oci", "transfer/wait"},
	"transfer/holdings":      {"transfer/grants", "transfer/oci", "cache"},
	"transfer/upstream":      {"transfer/oci", "transfer/trace", "transfer/wait"},
	"transfer/lanes":         {"transfer/oci", "transfer/wait"},
	"transfer/mesh":          {"transfer/oci", "transfer/wait"},
	"transfer/count":         {"transfer/oci"},
	"transfer/feed":          {},
	"transfer/upstreamtest":  {},
	"transfer/oci":           {},
	"transfer/wire":          {"transfer/wait"},
	"transfer/trace":         {},
	"transfer/wait":          {},
	"cache":                  {"transfer/wait"},
	"ring":                   {},
	"transfer/testkit":       {},
}

// only says who alone may import a library.
var only = map[string][]string{
	"gopkg.in/yaml.v3":                {"node/config", "node/setup"},
	"github.com/pelletier/":           {"node/setup"},
	"github.com/aymanbagabas/":        {"node/setup"},
	"github.com/cyphar/":              {"node/setup"},
	"github.com/prometheus/":          {"node/metrics"},
	"github.com/minio/":               {"transfer/archive"},
	"github.com/caddyserver/":         {"node/certs"},
	"go.uber.org/zap":                 {"node/certs"},
	"golang.org/x/sys":                {"cache"},
	"golang.org/x/time":               {"transfer/upstream"},
	"github.com/cespare/":             {"cache", "node/cluster", "ring", "node/membership"},
	"github.com/buraksezer/":          {"ring"},
	"github.com/hashicorp/memberlist": {"node/membership", "node/membership/memnet", "node/simulator"},
	"go.opentelemetry.io/":            {"transfer/trace"},
	"github.com/coreos/":              {"cmd/oci-proxy"},
	"github.com/schollz/":             {"cmd/oci-proxy"},
}

// A listed is what go list says of a package.
type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func TestFloors(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		room := strings.TrimPrefix(p.ImportPath, "oci-proxy/")
		allowed, known := floors[room]
		if !known && strings.HasPrefix(p.ImportPath, "oci-proxy/") {
			t.Errorf("%s is on no floor: say what it may import", room)
			continue
		}
		for _, i := range p.Imports {
			ours, isOurs := strings.CutPrefix(i, "oci-proxy/")
			if isOurs && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s", room, ours)
			}
			for library, owners := range only {
				if strings.HasPrefix(i, library) && !slices.Contains(owners, room) {
					t.Errorf("%s imports %s, which is for %v", room, i, owners)
				}
			}
			if i == "testing" && room != "transfer/upstreamtest" && room != "transfer/testkit" {
				t.Errorf("%s imports testing", room)
			}
		}
	}
}

// list asks the go command for all packages of the module.
func list(t *testing.T) []listed {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "oci-proxy/...").Output()
	if err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %v\n%s", err, e.Stderr)
		}
		t.Fatal(err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
