package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"oci-proxy/node/config"
)

// The README's table of keys is what the code takes, in its order.
func TestReadmeNamesEveryKey(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	for _, k := range config.Keys() {
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", k.Path, k.Type, k.Default, k.Doc)
	}
	if !strings.Contains(string(readme), table.String()) {
		t.Errorf("the README's table of keys should be:\n%s", table.String())
	}
}
