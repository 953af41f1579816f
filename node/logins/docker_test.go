package logins

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oci-proxy/transfer/upstream"
)

// helper is a credential helper: it knows registries by what it reads, and says what it read.
const helper = `read -r server || true
[ "$1" = get ] || exit 2
case "$server" in
*none*) echo "credentials not found in native keychain"; exit 1;;
*broken*) echo "` + secret + `"; exit 1;;
*garbled*) echo "` + secret + `";;
*identity*) printf '{"ServerURL":"%s","Username":"<token>","Secret":"refresh"}' "$server";;
*) printf '{"ServerURL":"%s","Username":"'"$0"'","Secret":"%s"}' "$server" "$server";;
esac`

// Which login a docker config gives for a registry.
func TestDockerConfigs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"ecr-login", "osxkeychain"} {
		file := filepath.Join(dir, "docker-credential-"+name)
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+strings.ReplaceAll(helper, "'\"$0\"'", name)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	auth := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	const hub = "registry-1.docker.io"
	for name, c := range map[string]struct{ config, registry, user, password, wrong string }{
		"a plain login":                {`{"auths":{"a.io":{"auth":"` + auth("u:p:q") + `"}}}`, "a.io", "u", "p:q", ""},
		"by a port":                    {`{"auths":{"a.io":{"auth":"` + auth("u:p") + `"},"a.io:5000":{"auth":"` + auth("v:q") + `"}}}`, "a.io:5000", "v", "q", ""},
		"by an URL":                    {`{"auths":{"https://a.io/v2/":{"auth":"` + auth("u:p") + `"}}}`, "a.io", "u", "p", ""},
		"in capitals":                  {`{"auths":{"HTTPS://A.io":{"auth":"` + auth("u:p") + `"}}}`, "a.io", "u", "p", ""},
		"Docker Hub":                   {`{"auths":{"https://index.docker.io/v1/":{"auth":"` + auth("u:p") + `"}}}`, hub, "u", "p", ""},
		"Docker Hub, as podman has it": {`{"auths":{"docker.io":{"auth":"` + auth("u:p") + `"}}}`, hub, "u", "p", ""},
		"in two fields":                {`{"auths":{"a.io":{"username":"u","password":"p"}}}`, "a.io", "u", "p", ""},
		"an identity token (ACR)":      {`{"auths":{"a.io":{"auth":"` + auth("00000000-0000-0000-0000-000000000000:") + `","identitytoken":"r"}}}`, "a.io", upstream.IdentityUser, "r", ""},
		"a helper for it":              {`{"credHelpers":{"a.io":"ecr-login"},"credsStore":"osxkeychain"}`, "a.io", "ecr-login", "a.io", ""},
		"a helper for another":         {`{"credHelpers":{"b.io":"ecr-login"},"credsStore":"osxkeychain"}`, "a.io", "osxkeychain", "a.io", ""},
		"a store":                      {`{"auths":{"a.io":{}},"credsStore":"osxkeychain"}`, "a.io", "osxkeychain", "a.io", ""},
		"a store for Docker Hub":       {`{"credsStore":"osxkeychain"}`, hub, "osxkeychain", "https://index.docker.io/v1/", ""},
		"a helper for Docker Hub":      {`{"credHelpers":{"docker.io":"ecr-login"}}`, hub, "ecr-login", "docker.io", ""},
		"a helper's identity token":    {`{"credsStore":"osxkeychain"}`, "identity.io", upstream.IdentityUser, "refresh", ""},
		"not in the store":             {`{"credsStore":"osxkeychain"}`, "none.io", "", "", `"docker-credential-osxkeychain" was asked for none.io: it has no login`},
		"not in the store but here":    {`{"auths":{"none.io":{"auth":"` + auth("u:p") + `"}},"credsStore":"osxkeychain"}`, "none.io", "u", "p", ""},
		"a helper that fails":          {`{"auths":{"broken.io":{"auth":"` + auth("u:p") + `"}},"credsStore":"osxkeychain"}`, "broken.io", "", "", "exit status 1"},
		"a helper that prints rubbish": {`{"credsStore":"osxkeychain"}`, "garbled.io", "", "", "no JSON object"},
		"a helper that is not there":   {`{"credsStore":"gone"}`, "a.io", "", "", "not found"},
		"a helper with a path":         {`{"credHelpers":{"a.io":"../x"}}`, "a.io", "", "", "cannot be the name of a program"},
		"a helper of two words":        {`{"credHelpers":{"a.io":"x get; id"}}`, "a.io", "", "", "cannot be the name of a program"},
		"another registry's":           {`{"auths":{"b.io":{"auth":"` + auth("u:p") + `"},"a.io/team":{"auth":"` + auth("u:p") + `"}}}`, "a.io", "", "", "holds no login for a.io"},
		"a sub-domain's":               {`{"auths":{"x.a.io":{"auth":"` + auth("u:p") + `"}}}`, "a.io", "", "", "holds no login for a.io"},
		"nothing":                      {`{}`, "a.io", "", "", "holds no login for a.io"},
		"an empty file":                {``, "a.io", "", "", "not a docker config.json"},
		"no JSON":                      {secret, "a.io", "", "", "not a docker config.json"},
		"no base64":                    {`{"auths":{"a.io":{"auth":"` + secret + `!"}}}`, "a.io", "", "", "not base64"},
		"half a login":                 {`{"auths":{"a.io":{"auth":"` + auth(secret) + `"}}}`, "a.io", "", "", "half a login"},
		"a registry token":             {`{"auths":{"a.io":{"registrytoken":"` + secret + `"}}}`, "a.io", "", "", "registrytoken, which is not used"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(file, []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Docker(file, c.registry)(t.Context())
			if c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) || c.wrong == "" && (err != nil || got.Username != c.user || got.Password != c.password) {
				t.Errorf("%+v, %v", got, err)
			}
			silent(t, fmt.Sprint(err))
		})
	}
}

// A docker config is read again by itself, so that a login in it may be replaced.
func TestADockerConfigThatChanges(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.json")
	get := Docker(file, "a.io")
	for _, password := range []string{"first", "second"} {
		text := fmt.Sprintf(`{"auths":{"a.io":{"username":"u","password":%q}}}`, password)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := get(t.Context())
		if err != nil || got.Password != password || got.Again != fileAgain || got.Life != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	}
}
