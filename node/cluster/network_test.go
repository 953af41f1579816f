package cluster

import (
	"fmt"
	"strings"
	"testing"

	"oci-proxy/node/config"
)

// What gossip tells of a node holds no secret.
func TestGossipTellsNoSecret(t *testing.T) {
	t.Parallel()
	cfg, err := config.Parse("test.yaml", []byte(`auth: {username: clients-user, password: clients-password}
defaults: {upstream_proxy: "http://proxy-user:proxy-password@proxy.example"}
registries: {private.example: {auth: {username: registry-user, password: registry-password}}}
cluster: {name: node-1, secrets: [current-secret-of-the-cluster, former-secret-of-the-cluster]}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	told := gossip(Config{Node: cfg, Version: "1"}, "192.0.2.1:7947", [32]byte{})
	if len(told.Secrets) != 2 || len(told.Registries) != 2 {
		t.Fatalf("%+v", told)
	}
	told.Secrets = nil // gossip is sealed with them
	said := fmt.Sprintf("%+v", told)
	for _, secret := range []string{"clients-user", "-password", "proxy-user", "registry-user", "secret-of-the-cluster"} {
		if strings.Contains(said, secret) {
			t.Errorf("%q is told: %s", secret, said)
		}
	}
}
