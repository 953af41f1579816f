package node

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"oci-proxy/node/config"
	"oci-proxy/node/health"
	"oci-proxy/node/logins"
	"oci-proxy/node/reload"
	"oci-proxy/transfer/upstream"
	"oci-proxy/transfer/wait"
)

// passwords are those that may change while the node runs: they are made to last for hours.
// Some are in files, which are read again when they change and when a registry refuses one;
// others a command or a docker config gives (node/logins).
type passwords struct {
	byKey map[string]openLogin // by the keys of the logins
	life  *wait.Life           // of commands under way; it outlives a reload
}

// A loginSource is where a login's password comes from.
type loginSource interface {
	upstream.LoginSource
	Health() error // what is wrong with it now, under the config's key
}

// An openLogin is a source with what the config said when it was opened.
type openLogin struct {
	loginSource
	as config.Account
}

// noPasswords is what a node has before it opens any. Close it.
func noPasswords() *passwords {
	return &passwords{byKey: map[string]openLogin{}, life: wait.NewLife()}
}

// openPasswords reads the files that the config names. It runs no command yet. Sources that
// were open before, for the same, stay open; their life goes on. Those that are in none any
// more end by themselves: nobody uses them.
func openPasswords(cfg *config.Config, was *passwords, log *slog.Logger) (*passwords, error) {
	all := &passwords{byKey: map[string]openLogin{}, life: was.life}
	for _, r := range cfg.Registries {
		for _, a := range r.Logins() {
			key := keyOf(r, a)
			if open, ok := was.byKey[key]; ok && sameSource(open.as, a) {
				all.byKey[key] = open
				continue
			}
			one, err := all.open(r, a, log)
			if err != nil {
				return nil, err
			}
			if one != nil {
				all.byKey[key] = openLogin{one, a}
			}
		}
	}
	return all, nil
}

// open returns the source of a login, nil if its password stays.
func (p *passwords) open(r config.Registry, a config.Account, log *slog.Logger) (loginSource, error) {
	key := keyOf(r, a)
	switch {
	case len(a.Exec) > 0:
		return logins.New(key+".exec", logins.Exec(a.Exec), p.life, log), nil
	case a.DockerConfig != "":
		return logins.New(key+".docker_config", logins.Docker(a.DockerConfig, r.Host), p.life, log), nil
	case a.PasswordFile != "":
		file, err := reload.Open(key+".password_file", []string{a.PasswordFile},
			func() (config.Secret, error) { return config.ReadPassword(a.PasswordFile) }, log)
		return passwordFile{a.Username, file}, err
	}
	return nil, nil
}

// sameSource reports whether two logins have the same source.
func sameSource(a, b config.Account) bool {
	return a.Username == b.Username && a.PasswordFile == b.PasswordFile && a.DockerConfig == b.DockerConfig && slices.Equal(a.Exec, b.Exec)
}

// keyOf is the key of a registry's login.
func keyOf(r config.Registry, a config.Account) string { return "registries." + r.Host + "." + a.Key }

// begin runs the commands of the registries that this node asks, so that it is known early if
// they fail. Those that were there before have begun.
func (p *passwords) begin(cfg *config.Config, was *passwords) {
	if cfg.Cluster != nil && !cfg.Cluster.Egress {
		return
	}
	for _, r := range cfg.Registries {
		for _, a := range r.Logins() {
			one := p.byKey[keyOf(r, a)].loginSource
			if command, ok := one.(*logins.Source); ok && !r.Offline && one != was.byKey[keyOf(r, a)].loginSource {
				command.Begin()
			}
		}
	}
}

// close ends the commands under way.
func (p *passwords) close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	p.life.Close(now)
}

// of is the source of a login, nil if its password stays.
func (p *passwords) of(r config.Registry, a config.Account) upstream.LoginSource {
	if one, ok := p.byKey[keyOf(r, a)]; ok {
		return one.loginSource
	}
	return nil
}

// health lists what is wrong with the passwords.
func (p *passwords) health() (wrong []error) {
	for _, key := range slices.Sorted(maps.Keys(p.byKey)) {
		if err := p.byKey[key].Health(); err != nil {
			wrong = append(wrong, health.Because(health.LoginSource, err))
		}
	}
	return wrong
}

// A passwordFile is a login whose password is in a file.
type passwordFile struct {
	username string
	file     *reload.Files[config.Secret]
}

func (p passwordFile) with(password config.Secret) upstream.Credentials {
	return upstream.Credentials{Username: p.username, Password: password.Reveal()}
}

// Last implements upstream.LoginSource.
func (p passwordFile) Last() upstream.Credentials { return p.with(p.file.Last()) }

// Ready implements upstream.LoginSource. A password in a file lasts until it is refused.
func (p passwordFile) Ready(context.Context) (upstream.Credentials, error) { return p.Last(), nil }

// Fresh implements upstream.LoginSource.
func (p passwordFile) Fresh(ctx context.Context) upstream.Credentials {
	return p.with(p.file.Fresh(ctx))
}

// Health implements loginSource.
func (p passwordFile) Health() error { return p.file.Health() }
