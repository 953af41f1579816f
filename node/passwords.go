package node

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"oci-proxy/node/config"
	"oci-proxy/node/reload"
	"oci-proxy/transfer/upstream"
)

// passwords are those that are in files, by the keys of their logins. They are
// read again when the file changes, and when a registry refuses one: such passwords are
// made to last for hours.
type passwords map[string]passwordFile

// A passwordFile implements upstream.PasswordSource.
type passwordFile struct {
	path string
	file *reload.Files[config.Secret]
}

// openPasswords reads the files that the config names. Those that were open before stay open.
func openPasswords(cfg *config.Config, was passwords, log *slog.Logger) (passwords, error) {
	all := passwords{}
	for _, r := range cfg.Registries {
		for _, a := range r.Logins() {
			if a.PasswordFile == "" {
				continue
			}
			if open, ok := was[keyOf(r, a)]; ok && open.path == a.PasswordFile {
				all[keyOf(r, a)] = open
				continue
			}
			file, err := reload.Open(keyOf(r, a)+".password_file", []string{a.PasswordFile},
				func() (config.Secret, error) { return config.ReadPassword(a.PasswordFile) }, log)
			if err != nil {
				return nil, err
			}
			all[keyOf(r, a)] = passwordFile{a.PasswordFile, file}
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
func (p passwords) health() (out []string) {
	for _, one := range p {
		if err := one.file.Health(); err != nil {
			out = append(out, err.Error())
		}
	}
	slices.SortFunc(out, strings.Compare)
	return out
}

// Password implements upstream.PasswordSource.
func (p passwordFile) Password() string { return p.file.Last().Reveal() }

// Fresh implements upstream.PasswordSource.
func (p passwordFile) Fresh(ctx context.Context) string { return p.file.Fresh(ctx).Reveal() }
