package upstream

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

const imageType = "application/vnd.oci.image.manifest.v1+json"

// What something on the way changed is a 203. A digest tells whether it is right.
func TestNonAuthoritativeAnswersCount(t *testing.T) {
	t.Parallel()
	client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
		if strings.Contains(r.URL.Path, "/tags/") {
			return reply(203, "{}", "Content-Type", "application/json"), nil
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			return reply(203, "hello"), nil
		}
		return reply(203, wholeIndex, "Content-Type", imageType, "Docker-Content-Digest", digest.FromString(wholeIndex).String()), nil
	})
	wantHello(t, client, "reg.example.com")
	ref := oci.Ref{Registry: "reg.example.com", Repository: "team/app", Tag: "v1"}
	for _, of := range []oci.Ref{ref, {Registry: ref.Registry, Repository: ref.Repository, Digest: digest.FromString(wholeIndex)}} {
		if m, err := client.Manifest(t.Context(), of, nil); err != nil || m.Digest != digest.FromString(wholeIndex) || m.MediaType != imageType {
			t.Errorf("%+v, %v", m, err)
		}
		if d, err := client.Stat(t.Context(), of, false, nil); err != nil || d.Digest != digest.FromString(wholeIndex) || d.Size != int64(len(wholeIndex)) {
			t.Errorf("%+v, %v", d, err)
		}
	}
	if _, err := client.Tags(t.Context(), ref, "", new(bytes.Buffer)); err != nil {
		t.Error(err)
	}
}

// A token server's answer is taken as clients take it.
func TestTokensComeInManyWays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"created":                     {201, `{"token":"t"}`},
		"non-authoritative":           {203, `{"token":"t"}`},
		"a newline after it":          {200, `{"token":"t\n"}`},
		"space around it":             {200, `{"token":" \tt\r\n"}`},
		"access_token with a newline": {200, `{"access_token":"t\n"}`},
		"an empty token":              {200, `{"token":"","access_token":"t"}`},
		"a blank token":               {200, `{"token":" \n","access_token":"t"}`},
		"null":                        {200, `{"token":null,"access_token":"t"}`},
		"its life as text":            {200, `{"token":"t","expires_in":"300"}`},
		"its life as text with space": {200, `{"token":"t","expires_in":" 300 "}`},
		"its life as a word":          {200, `{"token":"t","expires_in":"soon"}`},
		"its life as a fraction":      {200, `{"token":"t","expires_in":299.9}`},
		"its life as null":            {200, `{"token":"t","expires_in":null,"issued_at":7}`},
		"its life as a list":          {200, `{"token":"t","expires_in":[1]}`},
		"no life at all":              {200, `{"token":"t","expires_in":-5}`},
		"more":                        {200, `{"refresh_token":"r","scope":"x","token":"t","token_type":"Bearer"}` + "\n"},
	} {
		client := tokened(t, func() *http.Response { return reply(c.status, c.body, "Content-Type", "application/json") })
		if got, err := opened(t.Context(), client, hello("reg.example.com")); err != nil || got != "hello" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, body := range map[string]string{
		"a newline in it": `{"token":"a\nb"}`, "a space in it": `{"token":"a b"}`, "blank": `{"token":" "}`, "none": `{}`, "no JSON": `t`, "nothing": ``,
	} {
		client := tokened(t, func() *http.Response { return reply(200, body) })
		if _, err := opened(t.Context(), client, hello("reg.example.com")); err == nil {
			t.Errorf("%s: is taken", name)
		} else {
			wantError(t, err, oci.Unavailable, "holds no token")
		}
	}
}

// tokened is a client of a registry that wants the token t, with a token server of its own.
func tokened(t *testing.T, token func() *http.Response) *Client {
	t.Helper()
	return faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
		switch {
		case r.URL.Path == "/token":
			return token(), nil
		case r.Header.Get("Authorization") != "Bearer t":
			return reply(401, "", "WWW-Authenticate", `Bearer realm="https://reg.example.com/token",scope="repository:team/app:pull"`), nil
		}
		return reply(200, "hello"), nil
	})
}

// What comes compressed though nobody asked for that is asked for once more. Then the
// error names the host and the encoding.
func TestUnaskedEncodings(t *testing.T) {
	t.Parallel()
	const zipped = "\x1f\x8b not hello"
	ref := oci.Ref{Registry: "reg.example.com", Repository: "team/app", Tag: "v1"}
	for _, coding := range []string{"gzip", "x-gzip", "br", "zstd", "gzip, identity"} {
		for name, ask := range map[string]func(*Client) error{
			"a manifest by tag":    func(c *Client) error { _, err := c.Manifest(t.Context(), ref, nil); return err },
			"a manifest by digest": func(c *Client) error { _, err := c.Manifest(t.Context(), hello(ref.Registry), nil); return err },
			"tags":                 func(c *Client) error { _, err := c.Tags(t.Context(), ref, "", new(bytes.Buffer)); return err },
			"referrers": func(c *Client) error {
				_, err := c.Referrers(t.Context(), hello(ref.Registry), "", new(bytes.Buffer))
				return err
			},
		} {
			for _, bad := range []int{1, 2} {
				asked := 0
				client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
					if asked++; r.Header.Get("Accept-Encoding") != "identity" {
						t.Errorf("asked for the encoding %q", r.Header.Get("Accept-Encoding"))
					}
					if asked <= bad {
						return reply(200, zipped, "Content-Type", imageType, "Content-Encoding", coding), nil
					}
					if strings.HasSuffix(r.URL.Path, "/v1") {
						return reply(200, `{"manifests":[]}`, "Content-Type", imageType), nil
					}
					return reply(200, "hello", "Content-Type", imageType), nil
				})
				switch err := ask(client); {
				case bad == 1 && err != nil:
					t.Errorf("%s, %s, once: %v", name, coding, err)
				case bad == 2:
					e := wantError(t, err, oci.Corrupt, fmt.Sprintf("Content-Encoding %s, though none was asked for", coding))
					if e.Host != "reg.example.com" || asked != 2 {
						t.Errorf("%s, %s: host %q, asked %d times", name, coding, e.Host, asked)
					}
				}
			}
		}
	}
}

// A storage that says so of bytes that are right all the same is believed about the bytes.
func TestAnEncodingThatIsNone(t *testing.T) {
	t.Parallel()
	client := faked(t, Registry{FollowRedirects: true}, func(*http.Request) (*http.Response, error) {
		return reply(200, "hello", "Content-Type", imageType, "Content-Encoding", "gzip"), nil
	})
	if m, err := client.Manifest(t.Context(), hello("reg.example.com"), nil); err != nil || string(m.Bytes) != "hello" {
		t.Errorf("%+v, %v", m, err)
	}
	s, err := client.Open(t.Context(), hello("reg.example.com"), 0)
	if err != nil || !strings.Contains(s.Coding, "gzip") {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := s.Body.Close(); err != nil {
		t.Error(err)
	}
	if d, err := client.Stat(t.Context(), hello("reg.example.com"), true, nil); err != nil || d.Size != -1 {
		t.Errorf("a HEAD tells %d bytes, %v", d.Size, err)
	}
}
