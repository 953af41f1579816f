package node

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// tool returns the path of a registry or client, from the PATH or from where
// .ci/tools.sh puts it. The test is skipped on a machine without it.
func tool(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	if cache, err := os.UserCacheDir(); err == nil {
		path := filepath.Join(cache, "oci-proxy-ci", "bin", name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// use runs a tool to its end and returns what it printed.
func use(t *testing.T, path string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", filepath.Base(path), args, err, errs.String())
	}
	return string(out)
}

// startRegistry runs a registry until the test ends, and waits until it answers at addr.
func startRegistry(t *testing.T, addr, path string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	var out testkit.Log
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	client := newClient(t)
	client.Timeout = time.Second
	testkit.Await(t, "the registry answers", func() bool {
		resp, err := client.Get("http://" + addr + "/v2/")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
}

// layerFile writes a layer and returns its path.
func layerFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "layer.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o644, Size: 5}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

// A signed manifest of schema 1, made by skopeo, is pulled by skopeo through the node
// from distribution 2.8, by its tag and by its digest, which names what was signed.
func TestRealSchema1(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	registry, skopeo, crane := tool(t, "docker-registry"), tool(t, "skopeo"), tool(t, "crane")
	addr := testkit.FreeAddr(t, "127.0.0.1")
	file := filepath.Join(t.TempDir(), "registry.yml")
	write(t, file, fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q, secret: x}\ncompatibility: {schema1: {enabled: true}}\n", t.TempDir(), addr))
	startRegistry(t, addr, registry, "serve", file)
	use(t, crane, "append", "--insecure", "-f", layerFile(t), "-t", addr+"/org/app:v2")
	use(t, skopeo, "copy", "--format", "v2s1", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+addr+"/org/app:v2", "docker://"+addr+"/org/app:v1")

	n, log := newNodeOf(t, fmt.Sprintf("default_registry: %q\ndefaults: {cache_dir: %q}\nregistries: {%q: {alias: [up], insecure: true}}", addr, t.TempDir(), addr))
	p := serving(t, n, log)
	host := strings.TrimPrefix(p.url, "http://")
	a := p.get("/v2/org/app/manifests/v1")
	a.want(t, http.StatusOK, "Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
	d := digest.Digest(a.Header.Get("Docker-Content-Digest"))
	if d == digest.FromBytes(a.body) || d.Validate() != nil {
		t.Errorf("the digest is %s, which is not that of a payload", d)
	}
	resp, err := http.Get("http://" + addr + "/v2/org/app/manifests/v1")
	if err != nil {
		t.Fatal(err)
	}
	own := read(resp)
	if !oci.Matches(d, a.body) || !oci.Matches(d, own.body) || own.Header.Get("Docker-Content-Digest") != d.String() {
		t.Errorf("other content than the registry's %s", own.Header.Get("Docker-Content-Digest"))
	}
	p.do(http.MethodHead, "/v2/org/app/manifests/"+d.String()).want(t, http.StatusOK, "Docker-Content-Digest", d.String())
	for _, name := range []string{"up/org/app:v1", "org/app:v1", "up/org/app@" + d.String()} {
		dir := t.TempDir()
		use(t, skopeo, "copy", "--src-tls-verify=false", "docker://"+host+"/"+name, "dir:"+dir)
		got, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
		if err != nil || !oci.Matches(d, got) { // distribution signs anew at each request
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	use(t, crane, "pull", "--insecure", host+"/up/org/app:v2", filepath.Join(t.TempDir(), "image.tar"))
}

// crane pulls from olareg at an IPv6 address through the node.
func TestRealIPv6(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	olareg, crane := tool(t, "olareg"), tool(t, "crane")
	addr := testkit.FreeAddr(t, "::1")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	startRegistry(t, addr, olareg, "serve", "--addr", "[::1]", "--port", port, "--store-type", "mem")
	use(t, crane, "append", "--insecure", "-f", layerFile(t), "-t", addr+"/org/app:v1")
	want := strings.TrimSpace(use(t, crane, "digest", "--insecure", addr+"/org/app:v1"))

	n, log := newNodeOf(t, fmt.Sprintf("default_registry: %q\ndefaults: {cache_dir: %q}\nregistries: {%q: {alias: [six], insecure: true}}", addr, t.TempDir(), addr))
	p := serving(t, n, log)
	host := strings.TrimPrefix(p.url, "http://")
	for _, name := range []string{"six/org/app", "org/app"} {
		if got := strings.TrimSpace(use(t, crane, "digest", "--insecure", host+"/"+name+":v1")); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		use(t, crane, "pull", "--insecure", host+"/"+name+":v1", filepath.Join(t.TempDir(), "image.tar"))
		if got := use(t, crane, "ls", "--insecure", host+"/"+name); strings.TrimSpace(got) != "v1" {
			t.Errorf("%s has the tags %q", name, got)
		}
	}
	var stats map[string]struct{ Hits, Misses int }
	if err := json.Unmarshal(p.get("/_/stats?scope=node").body, &stats); err != nil || stats[addr].Hits == 0 || stats[addr].Misses == 0 {
		t.Errorf("stats %+v, %v", stats, err)
	}
	p.get("/v2/org/app/manifests/v1?ns="+addr).want(t, http.StatusOK, "Docker-Content-Digest", want)
}
