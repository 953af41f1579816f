package config

import "testing"

// Docker Hub is built in until somebody says a thing about it, or names another default.
func TestBuiltIn(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"": true, "default_registry: docker.io": true, "registries: {docker.io: {}, ghcr.io: {private: true}}": true,
		"defaults: {upstream_proxy: 'http://proxy.example:3128', cache_max_size: 5g}": true, "allow_addresses: [198.18.0.0/15]": true,
		"default_registry: ghcr.io": false, "registries: {docker.io: {auth: {username: u, password: p}}}": false,
		"registries: {docker.io: {tag_ttl: 5m}}": false, "registries: {docker.io: {mirrors: [mirror.example]}}": false,
		"default_registry: ghcr.io\nregistries: {docker.io: {}}": false,
	} {
		c := must(t, text)
		for _, r := range c.Registries {
			if got := c.BuiltIn(r); got != (want && r.Host == DockerHub) {
				t.Errorf("%q: %s is built in: %v", text, r.Host, got)
			}
		}
	}
}
