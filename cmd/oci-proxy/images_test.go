package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"oci-proxy/transfer/testkit"
)

// What an operator does with images: ls, pin, purge and verify, against a running node.
func TestImagesByCommand(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	s := newShipment(t)
	dir := t.TempDir()
	file, addr := nodeConfig(t, s.registry, dir, "")
	node := start(t, addr, "serve", "-c", file)
	do := func(status int, command string) result {
		t.Helper()
		words := strings.Fields(command)
		r := call(t.Context(), append([]string{words[0], "-c", file, "-addr", addr}, words[1:]...)...)
		if r.status != status {
			t.Errorf("%s: status %d\n%s%s", command, r.status, r.out, r.err)
		}
		return r
	}
	name := s.registry.Host() + "/org/app:v1"

	wantIn(t, do(exitDone, "ls").out, "nothing is cached")
	wantIn(t, do(exitFailed, "ls **").err, "nothing that is cached matches **")
	wantIn(t, do(exitFailed, "pin "+name).err, "nothing of it is cached: warm it first")
	do(exitDone, "warm -platform all "+name)
	wantIn(t, do(exitDone, "ls").out, "IMAGE", "PLATFORMS", name, "linux/amd64,linux/arm64", "all", "now")
	wantIn(t, do(exitDone, "ls -o json "+name).out, `"image": "`+name+`"`, s.index.String(), `"pinned": false`)
	wantIn(t, do(exitFailed, "ls "+s.registry.Host()+"/org/app").err, "is not cached; to see all of its tags, end the name with :*")
	do(exitUsage, "ls a b")
	do(exitUsage, "ls -o yaml")
	wantIn(t, do(exitFailed, "ls a//*").err, "a pattern is registry/repository")

	wantIn(t, do(exitDone, "pin "+name).out, name+" is pinned")
	wantIn(t, do(exitDone, "ls").out, "pinned")
	r := do(exitFailed, "purge "+name)
	wantIn(t, r.err, name+" stays: it is pinned: unpin it first", "not everything is forgotten")
	wantIn(t, do(exitDone, "unpin "+name).out, "is not pinned any more")
	wantIn(t, do(exitFailed, "unpin "+name).err, "it is not pinned")
	for _, command := range []string{"pin", "unpin", "purge"} {
		do(exitUsage, command)
	}

	wantIn(t, do(exitDone, "verify").out, "blobs are verified")
	blob := filepath.Join(dir, "blobs", "sha256", s.layers[1].Encoded()[:2], s.layers[1].Encoded())
	if err := os.WriteFile(blob, []byte("LAYER of amd64"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = do(exitFailed, "verify")
	wantIn(t, r.out, s.layers[1].String()+" of "+s.registry.Host(), "is wrong, and is removed")
	wantIn(t, r.err, "1 blobs were wrong, and are removed")
	wantIn(t, do(exitDone, "verify -o json").out, `"done":true`)
	wantIn(t, do(exitDone, "ls").out, "99%")

	wantIn(t, do(exitDone, "purge -n "+name).out, name+" would be forgotten", "1 images would be forgotten: 1 tags")
	wantIn(t, do(exitDone, "ls").out, name)
	wantIn(t, do(exitFailed, "purge nobody/**").err, "nothing that is cached matches nobody/**")
	wantIn(t, do(exitDone, "purge **").out, name+" is forgotten")
	wantIn(t, do(exitDone, "ls").out, "nothing is cached")
	node.end(syscall.SIGTERM)
	wantIn(t, do(exitFailed, "ls").err, "asking "+addr+" what is cached")
}
