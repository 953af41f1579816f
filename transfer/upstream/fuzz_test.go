package upstream

import (
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"oci-proxy/transfer/wait"
)

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "1", "-1", "99999999999", "1e9", " 5 ", "Mon, 02 Jan 2106 15:04:05 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"} {
		f.Add(s)
	}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if d := retryAfter(http.Header{"Retry-After": {s}}, now); d < 0 || d > 24*time.Hour {
			t.Errorf("%q is %s", s, d)
		}
	})
}

func FuzzErrorBody(f *testing.F) {
	f.Add(`{"errors":[{"code":"DENIED","message":"no"}]}`, "application/json")
	f.Add(`{"errors":[{"message":"\u001b[2J\u202e"}]}`, "text/plain")
	f.Add(`<html>`, "text/html")
	f.Add(strings.Repeat("[", 20000), "")
	f.Fuzz(func(t *testing.T, body, kind string) {
		said, _ := saidBy(&http.Response{Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(body))})
		if !utf8.ValidString(said) || utf8.RuneCountInString(said) > maxReason || strings.ContainsFunc(said, func(c rune) bool { return !unicode.IsPrint(c) }) {
			t.Errorf("%q says %q", body, said)
		}
	})
}

// FuzzGuard checks that a registry that nobody configured is never asked if its host is an
// address or lies on a private network, however the host is spelled.
func FuzzGuard(f *testing.F) {
	for _, s := range []string{"ghcr.io", "127.0.0.1", "[::1]", "0x7f.1", "2130706433", "a.internal", "ghcr.io:443", "u@ghcr.io", "１２７.0.0.1", "metadata.google.internal", "localhost", "x.lan"} {
		f.Add(s)
	}
	stranger := newGuard(newHome("reg.example.com", false), Registry{})
	public := newGuard(newHome("reg.example.com", false), Registry{Configured: true})
	f.Fuzz(func(t *testing.T, host string) {
		u, err := url.Parse("https://" + host + "/x")
		if err != nil {
			return
		}
		if stranger.permits(u, true) == nil {
			name := strings.ToLower(u.Hostname())
			if _, err := netip.ParseAddr(name); err == nil || internalName(name) || u.Port() != "" && u.Port() != "443" || !strings.Contains(name, ".") || strings.ContainsFunc(name, func(c rune) bool { return c > '~' || c <= ' ' }) {
				t.Errorf("%q is asked", host)
			}
		}
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil && public.permits(u, false) == nil && !publicUnicast(ip) {
			t.Errorf("%q is asked from a public registry", host)
		}
	})
}

// publicUnicast reports whether ip is a public address by the standard library.
func publicUnicast(ip netip.Addr) bool {
	ip = ip.WithZone("").Unmap()
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !ip.IsLoopback()
}

// FuzzRealm checks that no realm makes the client show a registry's credentials to another
// site, or to any host without TLS.
func FuzzRealm(f *testing.F) {
	for name := range map[string]bool{"https://auth.example.com/t": true, "//evil.net": true, "/t": true, `https://evil.net\@reg.example.com`: true, "https://reg.example.com@evil.net": true, "http://reg.example.com/": true} {
		f.Add(name)
	}
	life := wait.NewLife()
	f.Cleanup(func() { life.Close(f.Context()) })
	r := newRegistry(Registry{Host: "reg.example.com", Configured: true, Username: "u", Password: "p"}, nil, nil, life, slog.New(slog.DiscardHandler))
	at := &url.URL{Scheme: "https", Host: "reg.example.com", Path: "/v2/a/blobs/x"}
	f.Fuzz(func(t *testing.T, value string) {
		u, err := r.accounts.all[0].passes.realm(at, value)
		if err != nil || !r.accounts.all[0].passes.login.mayBeSeenAt(u.String()) {
			return
		}
		again, err := url.Parse(u.String())
		if name := strings.ToLower(u.Hostname()); err != nil || again.Host != u.Host || u.Scheme != "https" || u.User != nil || name != "example.com" && !strings.HasSuffix(name, ".example.com") {
			t.Errorf("%q is %s, and sees the credentials", value, u)
		}
	})
}
