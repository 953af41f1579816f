package logins

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"oci-proxy/node/config"
	"oci-proxy/transfer/upstream"
)

// Docker returns a Getter of a registry's login from a docker config.json: from the credential
// helper that it names for the registry, or from the file itself. The file is read each time.
func Docker(file, registry string) Getter {
	return func(ctx context.Context) (Login, error) {
		d, err := config.ReadDockerLogin(file, registry)
		if err != nil {
			return Login{}, err
		}
		if d.Helper != "" {
			login, err := ask(ctx, d)
			if !errors.Is(err, errNone) || d.Username == "" {
				return login, err
			}
		}
		c, err := credentials(d.Username, d.Password.Reveal())
		if err != nil {
			return Login{}, fmt.Errorf("%q cannot be used: %w", file, err)
		}
		return Login{Credentials: c, Again: fileAgain}, nil
	}
}

// errNone says that a credential helper has no login for a registry.
var errNone = errors.New("it has no login for the registry")

// none is what helpers print then (docker/docker-credential-helpers, credentials/error.go).
const none = "credentials not found in native keychain"

// ask asks a credential helper: "get" is its argument and the server is what it reads.
func ask(ctx context.Context, d config.DockerLogin) (Login, error) {
	out, err := run(ctx, []string{d.Helper, "get"}, d.Server)
	if err != nil && string(bytes.TrimSpace(out)) == none {
		return Login{}, fmt.Errorf("the credential helper %q was asked for %s: %w", d.Helper, d.Server, errNone)
	}
	if err != nil {
		return Login{}, err
	}
	var said struct{ Username, Secret string }
	if json.Unmarshal(out, &said) != nil {
		return Login{}, fmt.Errorf("what the credential helper %q prints cannot be used: it is no JSON object with Username and Secret", d.Helper)
	}
	var c upstream.Credentials
	if c, err = credentials(said.Username, said.Secret); err != nil {
		return Login{}, fmt.Errorf("what the credential helper %q prints cannot be used: %w", d.Helper, err)
	}
	return Login{Credentials: c, Again: untoldAgain}, nil
}
