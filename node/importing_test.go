package node

import (
	"archive/tar"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/image"
	"oci-proxy/transfer"
	"oci-proxy/transfer/oci"
)

// What a file lists is in memory until its end, so all of that together has a bound.
func TestALayoutIsBounded(t *testing.T) {
	t.Parallel()
	in := newTaking(t.Context(), transfer.Intake{}, func(name string) (oci.Ref, error) { return oci.ParseImage(name, oci.Names{}) })
	in.left = 1000
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		m := fmt.Sprintf(`{"schemaVersion":2,"annotations":{"n":"%d"}}`, i)
		err = in.manifest(digest.FromString(m), int64(len(m)), strings.NewReader(m))
	}
	if err == nil || !strings.Contains(err.Error(), "import it in parts") || len(in.held) > 1000/40 {
		t.Errorf("%d manifests came: %v", len(in.held), err)
	}
	many := `{"manifests":[` + strings.Repeat("{},", image.MaxIndex/3) + "{}]}"
	if _, err := image.NewReader(strings.NewReader(tarOf(t, image.IndexName, many))); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("an index of many entries: %v", err)
	}
}

// tarOf is a tar file with one file in it.
func tarOf(t *testing.T, name, content string) string {
	t.Helper()
	var b strings.Builder
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return b.String()
}
