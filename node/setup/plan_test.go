package setup

import (
	"os"
	"testing"
)

func TestTry(t *testing.T) {
	e, _ := ParseEndpoint("http://proxy.example:8080")
	for _, c := range Clients() {
		p, err := New(c, Options{Proxy: e, Login: true})
		if err != nil { t.Fatal(err) }
		os.WriteFile("/tmp/setup-script-"+c+".sh", p.Script(), 0o644)
	}
}
