package node

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"oci-proxy/node/config"
	"oci-proxy/node/reload"
)

// passwords are those of the registries that have theirs in a file, by host. They are
// read again when the file changes, and when a registry refuses one: such passwords are
// made to last for hours.
type passwords map[string]passwordFile

// A passwordFile implements upstream.PasswordSource.
type passwordFile struct{ file *reload.Files[config.Secret] }

// openPasswords reads the files that the config names.
func openPasswords(cfg *config.Config, log *slog.Logger) (passwords, error) {
	all := passwords{}
	for _, r := range cfg.Registries {
		if r.PasswordFile == "" {
			continue
		}
		file, err := reload.Open("registries."+r.Host+".auth.password_file", []string{r.PasswordFile},
			func() (config.Secret, error) { return config.ReadPassword(r.PasswordFile) }, log)
		if err != nil {
			return nil, err
		}
		all[r.Host] = passwordFile{file}
	}
	return all, nil
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
