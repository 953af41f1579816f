package rules

import (
	"slices"
	"strings"

	"oci-proxy/node/config"
	"oci-proxy/transfer/oci"
)

// names are the names that patterns are matched with.
type names struct {
	mirrors map[string][]string // by host: the registries that it is a mirror of
}

// namesOf returns the names by the config.
func namesOf(cfg *config.Config) names {
	n := names{map[string][]string{}}
	for _, r := range cfg.Registries {
		for _, m := range r.Mirrors {
			n.mirrors[m.Host] = append(n.mirrors[m.Host], r.Host)
		}
	}
	return n
}

// hub are the names of Docker Hub.
var hub = []string{config.DockerHub, "docker.io", "index.docker.io"}

// library begins the repositories of Docker Hub that have names of one part.
const library = "library/"

// of returns the names of ref's repository. own are those of the repository itself, others
// those under which the same content is had from elsewhere: what is refused there is refused
// here, but what is allowed there is not allowed here.
func (n names) of(ref oci.Ref) (own, others []string) {
	own = under(ref.Registry, ref.Repository)
	for _, same := range n.same(ref.Registry) {
		others = append(others, under(same, ref.Repository)...)
	}
	return own, others
}

// same returns the registries whose content a host has: those that it is a mirror of, the
// host without a scheme's own port, and Docker Hub for its further hosts.
func (n names) same(host string) []string {
	bare := config.Canonical(strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":80"))
	all := []string{bare, bare + ":443", bare + ":80"}
	if meant, other := config.Misnamed(bare); other {
		all = append(all, config.Canonical(meant))
	}
	for _, h := range []string{host, bare} {
		all = append(all, n.mirrors[h]...)
	}
	return slices.DeleteFunc(all, func(h string) bool { return h == host })
}

// under returns the names of a repository at a registry.
func under(registry, repository string) (all []string) {
	if registry != config.DockerHub {
		return []string{registry + "/" + repository}
	}
	repositories := []string{repository}
	if short, is := strings.CutPrefix(repository, library); is && !strings.Contains(short, "/") {
		repositories = append(repositories, short)
	} else if !strings.Contains(repository, "/") {
		repositories = append(repositories, library+repository)
	}
	for _, host := range hub {
		for _, r := range repositories {
			all = append(all, host+"/"+r)
		}
	}
	return all
}
