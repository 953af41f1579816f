package config

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestNoPrintOfAConfigTellsASecret(t *testing.T) {
	t.Parallel()
	c := must(t, `
auth: {username: u, password: sesame}
defaults: {upstream_proxy: "http://me:sesame@proxy:3128"}
registries: {a.io: {auth: {username: u, password: sesame}, accounts: [{username: v, password: sesame}]}}
cluster: {secret: sesamesesamesesame}
archive: {endpoint: "https://s3.example", bucket: cold, access_key: AK, secret_key: sesame}
`)
	r, _ := c.Registry("a.io")
	var out bytes.Buffer
	for _, v := range []any{c, *c, struct{ C *Config }{c}, struct{ R *Registry }{&r}, struct{ A *Auth }{&c.Auth}, r, &r, c.Registries, r.Accounts, &r.Accounts[0], r.Logins(), c.Auth, c.Cluster, *c.Cluster, c.Archive, *c.Archive, c.Cluster.Secrets, r.Password} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("dump", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("dump", "v", v)
		for _, marshal := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
			b, err := marshal(v)
			if err != nil {
				t.Errorf("%T: %v", v, err)
			}
			out.Write(b)
		}
	}
	for _, leak := range []string{"sesame", fmt.Sprintf("%x", "sesame"), fmt.Sprintf("%X", "sesame"), fmt.Sprint([]byte("sesame"))} {
		if strings.Contains(out.String(), leak) {
			at := strings.Index(out.String(), leak)
			t.Errorf("%q is in %s", leak, out.String()[max(0, at-200):at+len(leak)])
		}
	}
	if !strings.Contains(out.String(), "***") || !strings.Contains(out.String(), "me:xxxxx@proxy:3128") {
		t.Errorf("it does not show that secrets are set:\n%s", out.String())
	}
	if r.UpstreamProxy.User.String() != "me:sesame" || r.Password.Reveal() != "sesame" {
		t.Error("printing changed the config")
	}
}

func TestASecretShowsOnlyThatItIsThere(t *testing.T) {
	t.Parallel()
	for secret, want := range map[Secret]string{"sesame": "***", "": ""} {
		x, err := xml.Marshal(secret)
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range []string{
			secret.String(), fmt.Sprint(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%10.2s", secret), secret.LogValue().String(),
			strings.Trim(fmt.Sprintf("%q", secret), `"`), strings.Trim(secret.GoString(), `"`), string(bytes.TrimSuffix(bytes.TrimPrefix(x, []byte("<Secret>")), []byte("</Secret>"))),
		} {
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
}
