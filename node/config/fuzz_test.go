package config

import (
	"errors"
	"math"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
)

func FuzzParse(f *testing.F) {
	f.Add(ancestor, "OCI_PROXY_PORT=80")
	if text, err := os.ReadFile(deployed); err == nil {
		f.Add(string(text), "")
		f.Add(example.ReplaceAllString(string(text), "$1"), "CLUSTER_SECRET=0123456789abcdef")
	}
	for _, test := range bad {
		f.Add(test.text, "OCI_PROXY_CLUSTER__SEEDS=a:1,b:2")
	}
	f.Add("a: &a [*a]\n<<: &b {<<: [*b, *b]}", "OCI_PROXY_AUTH__USERNAME=u")
	f.Fuzz(func(t *testing.T, text, environ string) {
		for _, gaps := range [][]gap{notYet, nil} {
			c, err := parse("c.yaml", []byte(text), strings.Split(environ, "\n"), gaps)
			if err == nil {
				valid(t, c)
				continue
			}
			all, ok := errors.AsType[Problems](err)
			if !ok || len(all) == 0 || c != nil {
				t.Fatalf("got %v with %#v", c, err)
			}
			for _, p := range all {
				if p.Text == "" || p.Variable == "" && (p.Line < 1 || p.Column < 1) {
					t.Errorf("a problem lacks its place or text: %#v", p)
				}
			}
		}
	})
}

// valid fails the test if an accepted config breaks a promise of Config.
func valid(t *testing.T, c *Config) {
	t.Helper()
	hosts, names := []string{}, map[string]bool{}
	for _, r := range c.Registries {
		hosts = append(hosts, r.Host)
		validRegistry(t, r)
		for _, alias := range r.Alias {
			if names[alias] {
				t.Errorf("alias %q means two registries", alias)
			}
			names[alias] = true
		}
	}
	_, found := slices.BinarySearch(hosts, c.DefaultRegistry)
	switch {
	case c.Port < 1 || c.Port > 65535, c.LogFormat != "text" && c.LogFormat != "json", c.ShutdownTimeout < 0,
		!found, !slices.IsSorted(hosts), len(slices.Compact(hosts)) != len(c.Registries),
		(c.Auth.Username == "") != (c.Auth.Password == ""), len(c.Auth.AnonymousFrom) > 0 && c.Auth.Username == "":
		t.Errorf("invalid: %+v", c)
	}
	if m := c.Cluster; m != nil {
		open := !loopback(m.BindAddr) || !loopback(m.PeerAddr) || c.Auth.Asked() ||
			slices.ContainsFunc(c.Registries, func(r Registry) bool { return r.Private })
		if m.Name == "" || open && len(m.Secrets) == 0 || m.secret != "" {
			t.Errorf("invalid: %+v", m)
		}
		for _, s := range m.Secrets {
			if len(s) < minSecret {
				t.Error("a secret that is too short was accepted")
			}
		}
	}
}

// validRegistry does the same for one registry.
func validRegistry(t *testing.T, r Registry) {
	t.Helper()
	switch {
	case !validHostPort(r.Host), r.Host != Canonical(r.Host), (r.Username == "") != (r.Password == ""), r.Username != "" && !r.Private,
		r.Private && r.Public,
		r.TagTTL < 0, r.StaleIfError < 0, r.UpstreamConnections < 1, r.UpstreamRequests < 1, r.CacheDir == "", r.CacheMaxSize < 0, r.OwnBound < 0,
		r.UpstreamProxy != nil && r.UpstreamProxy.Host == "":
		t.Errorf("invalid: %+v", r)
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"0", "10g", "500m", "1024k", "10G", "10GiB", "10gb", "7t", "9223372036854775807", "9223372036854775808", "8388607t", "8388608t", "-1", "1.5g", "10 g", "10b", "g", "", "10Gi", "1i"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseSize(s)
		digits := s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
		shift, known := map[string]uint{
			"": 0, "k": 10, "kb": 10, "ki": 10, "kib": 10, "m": 20, "mb": 20, "mi": 20, "mib": 20,
			"g": 30, "gb": 30, "gi": 30, "gib": 30, "t": 40, "tb": 40, "ti": 40, "tib": 40,
		}[strings.ToLower(s[len(digits):])]
		want, isNumber := new(big.Int).SetString(digits, 10)
		fits := known && isNumber
		if fits {
			want.Lsh(want, shift)
			fits = want.Cmp(big.NewInt(math.MaxInt64)) <= 0
		}
		if (err == nil) != fits || fits && got != want.Int64() {
			t.Errorf("%q: got %d, %v", s, got, err)
		}
	})
}
