package node

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"oci-proxy/node/config"
	"oci-proxy/node/health"
	"oci-proxy/node/reload"
	"oci-proxy/transfer/upstream"
)

// passwords are those that are in files, by the keys of their logins. They are
// read again when the file changes, and when a registry refuses one: such passwords are
// made to last for hours.
type passwords map[string]passwordFile

// A passwordFile implements upstream.PasswordSource.
type passwordFile struct{ file *reload.Files[config.Secret] }

// openPasswords reads the files that the config names.
func openPasswords(cfg *config.Config, log *slog.Logger) (passwords, error) {
	all := passwords{}
	for _, r := range cfg.Registries {
		for _, a := range r.Logins() {
			if a.PasswordFile == "" {
				continue
			}
			file, err := reload.Open(keyOf(r, a)+".password_file", []string{a.PasswordFile},
				func() (config.Secret, error) { return config.ReadPassword(a.PasswordFile) }, log)
			if err != nil {
				return nil, err
			}
			all[keyOf(r, a)] = passwordFile{file}
		}
	}
	return all, nil
}

// keyOf is the key of a registry's login.
func keyOf(r config.Registry, a config.Account) string { return "registries." + r.Host + "." + a.Key }

// of is the source of a login's password, nil if it is in no file.
func (p passwords) of(r config.Registry, a config.Account) upstream.PasswordSource {
	if file, ok := p[keyOf(r, a)]; ok {
		return file
	}
	return nil
}

// health lists what is wrong with the files.
func (p passwords) health() (wrong []error) {
	for _, key := range slices.Sorted(maps.Keys(p)) {
		if err := p[key].file.Health(); err != nil {
			wrong = append(wrong, health.Because(health.PasswordFile, err))
		}
	}
	return wrong
}

// Password implements upstream.PasswordSource.
func (p passwordFile) Password() string { return p.file.Last().Reveal() }

// Fresh implements upstream.PasswordSource.
func (p passwordFile) Fresh(ctx context.Context) string { return p.file.Fresh(ctx).Reveal() }
