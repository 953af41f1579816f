package upstream

import (
	"testing"
	"time"
)

// Other registries are asked from commit on. Those that are described as before keep what is
// known of them.
func TestPreparedRegistriesAreAskedFromCommitOn(t *testing.T) {
	t.Parallel()
	a, b := Registry{Host: "a.example", Configured: true}, Registry{Host: "b.example", Configured: true, Username: "u", Password: "p"}
	c := newClient(t, a, b)
	stranger, err := c.registry("stranger.example")
	if err != nil {
		t.Fatal(err)
	}
	wasA, wasB := c.named["a.example"], c.named["b.example"]
	c.Pause("a.example", time.Minute)

	heard := a
	heard.Limited, heard.Mark = func(string, time.Duration) {}, func() string { return "" } // says nothing of the registry
	wasB.home.met("https")
	changed := b
	changed.Password = "q"
	added := Registry{Host: "c.example", Configured: true}
	commit, err := c.Prepare([]Registry{heard, changed, added}, Registry{FollowRedirects: true})
	if err != nil {
		t.Fatal(err)
	}
	if c.named["a.example"] != wasA || c.named["b.example"] != wasB || c.named["c.example"] != nil {
		t.Error("something has changed before commit")
	}
	commit()
	if c.named["a.example"] != wasA || c.named["b.example"] == wasB || c.named["c.example"] == nil {
		t.Error("what is as before is another one, or what changed is not")
	}
	if !c.named["b.example"].home.secured.Load() || c.named["c.example"].home.secured.Load() {
		t.Error("it is forgotten who has spoken TLS, or made up")
	}
	if again, err := c.registry("stranger.example"); err != nil || again != stranger {
		t.Errorf("what is known of strangers is forgotten: %v", err)
	}

	commit, err = c.Prepare([]Registry{heard}, Registry{FollowRedirects: true, Requests: 7})
	if err != nil {
		t.Fatal(err)
	}
	commit()
	if one, err := c.registry("b.example"); err != nil || one.home.stranger != stranger.home.stranger {
		t.Errorf("a registry that went is not a stranger: %v", err)
	}
	if again, err := c.registry("stranger.example"); err != nil || again == stranger {
		t.Errorf("strangers are asked as before: %v", err)
	}

	if _, err := c.Prepare([]Registry{a, a}, Registry{}); err == nil {
		t.Error("a registry that is given twice is taken")
	}
	if _, err := c.Prepare([]Registry{{Host: "d.example", Configured: true, CAFile: "/none"}}, Registry{}); err == nil || c.named["d.example"] != nil || c.named["a.example"] != wasA {
		t.Error("a registry with a bad file is taken, or has changed something")
	}
}

// Whatever tells a registry from another makes it another one.
func TestWhatMakesARegistryAnother(t *testing.T) {
	t.Parallel()
	one := Registry{Host: "a.example", Configured: true, Accounts: []Account{{Name: "n", Username: "u", Password: "p"}}}
	for name, change := range map[string]func(*Registry){
		"path": func(r *Registry) { r.Path = "/x" }, "rate": func(r *Registry) { r.Rate = 1 }, "requests": func(r *Registry) { r.Requests = 1 },
		"an account": func(r *Registry) { r.Accounts = append(r.Accounts, Account{Name: "m", Username: "v", Password: "q"}) },
		"a password": func(r *Registry) { r.Accounts = []Account{{Name: "n", Username: "u", Password: "q"}} },
		"none":       func(r *Registry) { r.Accounts = nil },
		"insecure":   func(r *Registry) { r.Insecure = true },
	} {
		other := one
		change(&other)
		if (made{one, nil}).like(other, nil) {
			t.Errorf("%s: it counts as the same", name)
		}
	}
	if !(made{one, nil}).like(one, nil) {
		t.Error("a registry is not like itself")
	}
	if !sameSource(nil, nil) {
		t.Error("two registries without a source of passwords differ")
	}
}
