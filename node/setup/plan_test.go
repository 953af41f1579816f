package setup

import (
	"encoding/json"
	"testing"
)

func TestTry(t *testing.T) {
	e, err := ParseEndpoint("http://proxy.example:8080")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Clients() {
		p, err := New(c, Options{Proxy: e, Login: true})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := json.MarshalIndent(p, "", " ")
		t.Log(string(b))
		for _, f := range p.Files {
			t.Log(f.Path + "\n" + f.Content)
		}
	}
}
