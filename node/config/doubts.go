package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// The doubts about single values. Each returns "" or why a valid value is most likely
// not what is meant, as the rest of a sentence that the value begins.

// fewBytes is less than any cache is meant to have.
const fewBytes = 1 << 20

func doubtSize(s string) string {
	n, err := parseSize(s)
	switch {
	case err != nil || n == 0 || n >= fewBytes:
		return ""
	case strings.Trim(s, "0123456789") == "":
		return fmt.Sprintf("means %s bytes, so next to nothing is cached; write %sg if GiB are meant", s, s)
	default:
		return "is less than almost every image layer, so next to nothing is cached; use for example 10g"
	}
}

// slowRate is less than any registry's bytes a second are meant to be.
const slowRate = 64 << 10

func doubtRate(s string) string {
	n, err := parseSize(s)
	switch {
	case err != nil || n == 0 || n >= slowRate:
		return ""
	case strings.Trim(s, "0123456789") == "":
		return fmt.Sprintf("means %s bytes a second, so pulls last until clients give up; write %sm if MiB are meant", s, s)
	default:
		return "is so little a second that pulls last until clients give up; use for example 10m"
	}
}

func doubtIdle(s string) string {
	if d, err := parseDuration(s); err == nil && d > 0 && d < time.Minute {
		return "is so short that content goes between two pulls of one image; use for example 30d"
	}
	return ""
}

// unexpanded matches paths that a shell would have changed.
var unexpanded = regexp.MustCompile(`^~|\$\{?[A-Za-z_]|%[A-Za-z_][A-Za-z0-9_]*%|\{\{.*\}\}`)

func doubtPath(s string) string {
	if unexpanded.MatchString(s) {
		return "is used as it stands: only ${NAME} is replaced, by the environment"
	}
	return ""
}

func doubtCIDR(s string) string {
	p, err := netip.ParsePrefix(s)
	if err != nil || p == p.Masked() {
		return ""
	}
	return fmt.Sprintf("means the whole network %s; write %s/%d for that address alone", p.Masked(), p.Addr(), p.Addr().BitLen())
}

func doubtBase(s string) string {
	u, err := url.Parse(s)
	if err != nil || strings.Trim(u.Path, "/") == "" {
		return ""
	}
	return fmt.Sprintf("has a path, which is not used: clients pull from %s, since image names have no place for a path before /v2/", u.Host)
}

// misnamed are hosts that people take for registries, and the registries they mean.
var misnamed = map[string]string{
	"hub.docker.com": "docker.io", "docker.com": "docker.io", "www.docker.com": "docker.io", "www.docker.io": "docker.io",
	"hub.docker.io": "docker.io", "app.docker.com": "docker.io", "cloud.docker.com": "docker.io", "login.docker.com": "docker.io",
	"registry.docker.io": "docker.io", "registry.docker.com": "docker.io", "registry.hub.docker.com": "docker.io",
	"auth.docker.io": "docker.io", "registry-1.docker.com": "docker.io", "index.docker.com": "docker.io",
	"github.com": "ghcr.io", "www.github.com": "ghcr.io", "gitlab.com": "registry.gitlab.com", "www.quay.io": "quay.io",
	"gallery.ecr.aws": "public.ecr.aws", "console.cloud.google.com": "gcr.io", "mcr.azurecr.io": "mcr.microsoft.com",
	"catalog.redhat.com": "registry.redhat.io",
}

// Misnamed returns the registry that people mean by a host that they take for its name. Some
// of these hosts serve the same content.
func Misnamed(host string) (meant string, ok bool) {
	meant, ok = misnamed[host]
	return meant, ok
}

func doubtRegistry(s string) string {
	host := strings.ToLower(s)
	name, port, ok := cutPort(host)
	if !ok {
		name = host
	}
	if meant := misnamed[name]; meant != "" {
		return fmt.Sprintf("is not the registry's name: what is set here does not apply to images of %s; write %s", meant, meant)
	}
	if ok && port == "443" {
		return fmt.Sprintf("has a port, and a port is part of a registry's name: what is set here does not apply to images of %s; write %s, which means port 443", name, publicName(name))
	}
	return ""
}

// publicName returns the name that people write for a registry.
func publicName(host string) string {
	if host = Canonical(host); host == DockerHub {
		return "docker.io"
	}
	return host
}

// didYouMean returns a hint at the registry in a text that is not one, such as a URL.
func didYouMean(s string) string {
	if strings.Contains(s, "@") { // it may be a login
		return ""
	}
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	host, _, _ := strings.Cut(strings.ToLower(s), "/")
	name := strings.TrimSuffix(host, ":443")
	if meant := misnamed[name]; meant != "" {
		name = meant
	}
	if name == "" || !validHostPort(name) {
		return ""
	}
	return " (did you mean " + publicName(name) + "?)"
}
