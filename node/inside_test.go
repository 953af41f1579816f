package node

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oci-proxy/node/health"
	"oci-proxy/transfer/upstreamtest"
)

// forwarded makes a request one that no operator sent.
var forwarded = []string{"X-Forwarded-For", "192.0.2.1"}

// TestStrangersHearOneText: whatever the name of a host that nobody configured means
// inside this network, clients are told the same, and operators what it is.
func TestStrangersHearOneText(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	for host, c := range map[string]struct{ address, inside string }{
		"nothing.map.net":   {"", "no such host"},
		"loopback.map.net":  {"127.0.0.1", "127.0.0.1"},
		"private.map.net":   {"10.20.30.40", "10.20.30.40"},
		"shared.map.net":    {"100.64.0.7", "100.64.0.7"},
		"fake.map.net":      {"198.18.0.42", "looks like the fake-IP DNS of a local proxy: set allow_addresses: [198.18.0.0/15]"},
		"metadata.map.net":  {"169.254.169.254", "metadata"},
		"multicast.map.net": {"224.0.0.5", "224.0.0.5"},
	} {
		if c.address != "" {
			dns.say(host, c.address)
		}
		for range 2 { // the second time it is remembered
			a := p.get("/v2/"+host+"/a/b/manifests/v1", forwarded...)
			d := a.wantError(t, http.StatusBadGateway, "UNAVAILABLE")
			if want := "no public address is known for the host, and a registry that is not configured is contacted at public addresses only"; d.Reason != want || d.UpstreamHost != host {
				t.Errorf("%s: %+v, want %q", host, d, want)
			}
			if a.Header.Get("Retry-After") != "" || strings.Count(string(a.body), host) != 3 {
				t.Errorf("%s: %s", host, a.body)
			}
		}
		if d := p.get("/v2/"+host+"/a/b/manifests/v1").wantError(t, http.StatusBadGateway, "UNAVAILABLE"); !strings.Contains(d.Reason, c.inside) {
			t.Errorf("%s: an operator hears %q, want %q", host, d.Reason, c.inside)
		}
	}
	if !p.log.Has("10.20.30.40") || !p.log.Has("allow_addresses") {
		t.Error("the log names neither address nor remedy")
	}
}

// TestAllowedAddressesAreReached, and others are not.
func TestAllowedAddressesAreReached(t *testing.T) {
	t.Parallel()
	for host, allowed := range map[string]bool{"in.allow.net": true, "out.allow.net": false} {
		dns.say(host, map[bool]string{true: "127.77.0.1", false: "127.78.0.1"}[allowed])
		p := newProxy(t, upstreamtest.New(t), settings{top: "allow_addresses: [127.77.0.0/16]"})
		d := p.get("/v2/"+host+"/a/b/manifests/v1").wantError(t, http.StatusBadGateway, "UNAVAILABLE")
		if got := strings.Contains(d.Reason, "connection refused"); got != allowed { // nothing listens there
			t.Errorf("%s: %+v; dialled: %v, want %v", host, d, got, allowed)
		}
	}
}

// TestEverybodyHearsCodesOfHealth, and operators the reasons.
func TestEverybodyHearsCodesOfHealth(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		top    string
		header []string
		full   bool
	}{
		"this machine":                      {"", nil, true},
		"another machine":                   {"", forwarded, false},
		"this machine, with auth":           {"auth: {username: u, password: secret}", nil, false},
		"another machine, with its login":   {"auth: {username: u, password: secret}", append([]string{"Authorization", "Basic " + basicOf("u", "secret")}, forwarded...), true},
		"another machine, with a bad login": {"auth: {username: u, password: secret}", append([]string{"Authorization", "Basic " + basicOf("u", "wrong")}, forwarded...), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newProxy(t, upstreamtest.New(t), settings{dir: file, top: c.top}).get("/_/health", c.header...)
			a.want(t, http.StatusOK)
			var state struct {
				Status  string
				Reasons []string
			}
			if err := json.Unmarshal(a.body, &state); err != nil || state.Status != "degraded" || len(state.Reasons) != 1 {
				t.Fatalf("%s, %v", a.body, err)
			}
			if got := strings.Contains(state.Reasons[0], file); got != c.full || !c.full && state.Reasons[0] != "cache_dir" {
				t.Errorf("%s, want the reason: %v", a.body, c.full)
			}
		})
	}
}

func TestReasonsForOperatorsAndOthers(t *testing.T) {
	t.Parallel()
	wrong := []error{
		health.Because(health.CacheDir, errors.New("/srv/secret: gone")), health.Because(health.CacheDir, errors.New("/srv/other: gone")),
		health.Because(health.Seed, errors.New("the seed 10.1.2.3:7946 was never met")), errors.New("10.0.0.1 is down"),
	}
	if got, want := reasons(wrong, false), []string{"cache_dir", "seed", "other"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := reasons(wrong, true), []string{"cache_dir: /srv/secret: gone", "cache_dir: /srv/other: gone", "seed: the seed 10.1.2.3:7946 was never met", "other: 10.0.0.1 is down"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
