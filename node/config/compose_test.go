package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

const imageConfig = "../../deploy/node.yaml"

func TestTheImagesConfigIsRight(t *testing.T) {
	t.Parallel()
	c, err := Load(imageConfig, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Port != 8080 || c.Cluster != nil {
		t.Errorf("port %d, cluster %v; the image exposes 8080 and runs alone", c.Port, c.Cluster)
	}
}

// The image tells every command where its config is.
func TestTheImageNamesItsConfig(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"ENV " + FileVariable + "=/etc/oci-proxy/config.yaml\n", "cp deploy/node.yaml /out/etc/oci-proxy/config.yaml"} {
		if !strings.Contains(string(text), line) {
			t.Errorf("the Dockerfile has no %q", line)
		}
	}
	if _, err := Parse("c.yaml", nil, []string{FileVariable + "=/etc/oci-proxy/config.yaml"}); err != nil {
		t.Error(err)
	}
}

// The environment that docker-compose.yml sets for the nodes fits their config.
func TestComposedNodesAreRight(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Environment     map[string]string `yaml:"environment"`
			StopGracePeriod string            `yaml:"stop_grace_period"`
			Volumes         []string          `yaml:"volumes"`
		} `yaml:"services"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("5a", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	nodes := 0
	for name, s := range file.Services {
		if !strings.HasPrefix(name, "node-") {
			continue
		}
		nodes++
		var environ []string
		for key, value := range s.Environment {
			environ = append(environ, key+"="+strings.Replace(value, "/run/oci-proxy/secret", secret, 1))
		}
		c, err := Load(imageConfig, environ)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(c.Cluster.Secrets) != 1 || !slices.Contains(c.Cluster.Seeds, name+":7946") || len(c.TrustedProxies) == 0 {
			t.Errorf("%s has %+v, trusted %v", name, c.Cluster, c.TrustedProxies)
		}
		if grace, err := time.ParseDuration(s.StopGracePeriod); err != nil || grace <= c.ShutdownTimeout {
			t.Errorf("%s is killed after %s, but may drain for %s", name, s.StopGracePeriod, c.ShutdownTimeout)
		}
		cache := strings.Replace(name, "node", "cache", 1) + ":/var/lib/oci-proxy"
		if !slices.Contains(s.Volumes, cache) {
			t.Errorf("%s: %v has no %s", name, s.Volumes, cache)
		}
	}
	if nodes != 3 {
		t.Errorf("%d nodes", nodes)
	}
}

// Without the balancer clients reach each node, so the nodes believe nobody's X-Forwarded-For.
func TestDirectNodesTrustNobody(t *testing.T) {
	t.Parallel()
	type composed struct {
		Services map[string]struct {
			Environment map[string]string `yaml:"environment"`
			Ports       []string          `yaml:"ports"`
			Profiles    []string          `yaml:"profiles"`
		} `yaml:"services"`
	}
	var whole, direct composed
	for file, into := range map[string]*composed{"../../docker-compose.yml": &whole, "../../deploy/compose-direct.yml": &direct} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, into); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	for name := range whole.Services {
		s, there := direct.Services[name]
		switch {
		case name == "balancer":
			if len(s.Profiles) == 0 {
				t.Error("the balancer is started")
			}
		case strings.HasPrefix(name, "node-"):
			value, set := s.Environment["OCI_PROXY_TRUSTED_PROXIES"]
			c, err := Load(imageConfig, []string{"OCI_PROXY_TRUSTED_PROXIES=" + value})
			if err != nil || !set || len(c.TrustedProxies) > 0 || len(s.Ports) != 1 {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
		case there:
			t.Errorf("%s is changed", name)
		}
	}
}
