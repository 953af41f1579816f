package oci

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// The expressions of the OCI distribution spec ("Pulling manifests"), that of a registry's host,
// and go-digest's reading of digests are what the grammar must agree with.
var (
	nameSpec     = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagSpec      = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	registrySpec = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?$`)
)

func agrees(t *testing.T, s string) {
	t.Helper()
	if got, want := isName(s), nameSpec.MatchString(s); got != want {
		t.Errorf("isName(%q) = %t", s, got)
	}
	if got, want := isTag(s), tagSpec.MatchString(s); got != want {
		t.Errorf("isTag(%q) = %t", s, got)
	}
	_, port, ported := strings.Cut(s, ":")
	if got, want := isRegistry(s), registrySpec.MatchString(s) && (!ported || isPort(port)); got != want && !strings.HasPrefix(s, "[") {
		t.Errorf("isRegistry(%q) = %t", s, got)
	}
	d := digest.Digest(s)
	want := d.Validate() == nil && (d.Algorithm() == digest.SHA256 || d.Algorithm() == digest.SHA512)
	if got := Verifiable(s); got != want {
		t.Errorf("Verifiable(%q) = %t", s, got)
	}
}

func TestGrammar(t *testing.T) {
	const letters = "ab09zZ_.-/:[% \n"
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var b strings.Builder
		for range random.IntN(9) {
			b.WriteByte(letters[random.IntN(len(letters))])
		}
		agrees(t, b.String())
	}
	for _, n := range []int{0, 1, 63, 64, 65, 127, 128, 129} {
		for _, c := range []string{"a", "g", "A", "0", "_", "é"} {
			for _, algorithm := range []string{"", "sha256:", "sha512:", "sha384:", "md5:", "SHA256:"} {
				agrees(t, algorithm+strings.Repeat(c, n))
				agrees(t, algorithm+strings.Repeat("0", max(n-1, 0))+c)
			}
		}
	}
}

func FuzzGrammar(f *testing.F) {
	f.Add("library/alpine__x.y-z")
	f.Add("localhost:5000")
	f.Add("sha256:" + strings.Repeat("0", 64))
	f.Fuzz(agrees)
}

func BenchmarkParsePath(b *testing.B) {
	names := Names{Default: "registry.example", Canonical: func(s string) string { return s }, Known: func(string) bool { return false }}
	path := "/v2/library/alpine/blobs/sha256:" + strings.Repeat("0", 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParsePath(path, "", names); err != nil {
			b.Fatal(err)
		}
	}
}
