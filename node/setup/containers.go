package setup

import (
	"fmt"
	"strings"
)

// podman is the plan for podman, buildah and skopeo.
func podman(o Options) (Plan, error) { return containers(o, "podman") }

// crio is the plan for CRI-O, which reads the same files as podman.
func crio(o Options) (Plan, error) { return containers(o, "CRI-O") }

// containers is the plan for what reads containers-registries.conf(5): a file of our own beside
// the machine's.
func containers(o Options, name string) (Plan, error) {
	const dir = "/etc/containers"
	p := Plan{Notes: o.usualNote(name)}
	own := dir + "/registries.conf.d/oci-proxy.conf"
	taken, err := surveyContainers(o.Machine, dir, own)
	if err != nil {
		return Plan{}, err
	}
	var part dropIn
	for _, registry := range o.listed() {
		if file, ok := taken[registry]; ok {
			p.Notes = append(p.Notes, fmt.Sprintf("%s has an entry for %s already, which stays as it is. To use the proxy, add to it: %s", file, registry, strings.Join(mirrorLines(o.Proxy, registry), "; ")))
			continue
		}
		part.lines = append(part.lines, "[[registry]]", fmt.Sprintf("prefix = %q", registry), fmt.Sprintf("location = %q", registry))
		part.lines = append(part.lines, mirrorLines(o.Proxy, registry)...)
	}
	if len(part.lines) > 0 {
		p.Files = append(p.Files, File{Path: own, part: part, Note: "Read beside registries.conf, by podman, buildah, skopeo and CRI-O."})
	}
	if o.CA != nil {
		p.Files = append(p.Files, File{Path: dir + "/certs.d/" + o.Proxy.Host() + "/ca.crt", part: certificates(o.CA), Note: "The authority that signed the proxy's certificate."})
	}
	p.Notes = append(p.Notes, fmt.Sprintf("If the proxy is down or refuses, %s asks the registry itself.", name))
	if name == "podman" {
		p.Notes = append(p.Notes, "A user's own ~/.config/containers/registries.conf takes the place of the machine's, this file included.")
	}
	if o.Login {
		p.Notes = append(p.Notes, containersLogin(o, name))
	}
	return p, nil
}

func containersLogin(o Options, name string) string {
	if name == "podman" {
		return fmt.Sprintf("The proxy asks for a login: podman login %s, for each user who pulls.", o.Proxy.Host())
	}
	return fmt.Sprintf("The proxy asks for a login: put one for %s into the file that global_auth_file in crio.conf names (podman login --authfile FILE %s).", o.Proxy.Host(), o.Proxy.Host())
}

// mirrorLines are the lines that make the proxy a mirror of a registry, in its entry.
func mirrorLines(proxy Endpoint, registry string) []string {
	lines := []string{"[[registry.mirror]]", fmt.Sprintf("location = %q", proxy.Host()+"/"+pathOf(registry))}
	if proxy.Plain() {
		lines = append(lines, "insecure = true")
	}
	return lines
}

// pathOf is how a registry is named at the beginning of a path: clients take no port there.
func pathOf(registry string) string { return strings.ReplaceAll(registry, ":", "_") }

// A dropIn is a file in registries.conf.d.
type dropIn struct{ lines []string }

func (d dropIn) into(text []byte) ([]byte, error) { return ownFile(text, marked(d.lines...)) }
