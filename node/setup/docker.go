package setup

import (
	"fmt"
	"slices"
)

// docker is the plan for Docker's engine. With its older image store it takes mirrors for
// Docker Hub only, from daemon.json. With containerd's store, the default since Docker 29,
// it reads hosts.toml below its certs.d, for all registries.
func docker(o Options) (Plan, error) {
	const dir = "/etc/docker"
	p := Plan{}
	hub := len(o.Registries) == 0 || slices.Contains(o.Registries, "docker.io")
	var daemon daemonJSON
	if hub && !o.NotHub {
		daemon.mirror = o.Proxy.URL()
	}
	if o.Proxy.Plain() && !o.Proxy.Loopback() {
		daemon.insecure = o.Proxy.Host()
		p.Notes = append(p.Notes, fmt.Sprintf("%s is plain HTTP: it stands in insecure-registries, so that names such as %s/ghcr.io/org/app can be pulled too.", o.Proxy.Host(), o.Proxy.Host()))
	}
	if daemon != (daemonJSON{}) {
		p.Files = append(p.Files, File{Path: dir + "/daemon.json", Merge: true, part: daemon, Note: "Docker's own config. All other keys stay."})
	}
	ca := ""
	if o.CA != nil {
		ca = dir + "/certs.d/" + o.Proxy.Host() + "/ca.crt"
		p.Files = append(p.Files, File{Path: ca, part: certificates(o.CA), Note: "The authority that signed the proxy's certificate."})
	}
	p.Files = append(p.Files, hostsFiles(o, dir+"/certs.d", ca, "Read by Docker with the containerd image store, the default since Docker 29; older ones leave it alone.")...)
	p.Notes = append(p.Notes, dockerNotes(o, hub)...)
	return p, nil
}

func dockerNotes(o Options, hub bool) []string {
	notes := []string{
		fmt.Sprintf("Docker without the containerd image store takes mirrors for Docker Hub only. There, pull from other registries as %s/ghcr.io/org/app.", o.Proxy.Host()),
		"If the proxy is down, Docker asks the registry itself.",
		"If dockerd is started with --registry-mirror or --insecure-registry, take those flags away: it does not start with the same setting in both places. docker info shows the mirrors in use.",
	}
	if hub && o.NotHub {
		notes = append(notes, "No mirror for Docker Hub is set in daemon.json: Docker would not say which registry it means, and at this proxy a name without one is not Docker Hub's.")
	}
	if o.Login {
		notes = append(notes,
			fmt.Sprintf("The proxy asks for a login. For names that begin with %s: docker login %s. With the containerd image store: an Authorization header in hosts.toml, as the file shows.", o.Proxy.Host(), o.Proxy.Host()),
			"For its mirrors Docker takes no login: Docker 20 sends the one for Docker Hub instead, Docker 29 none. Let such machines pull without one (auth.anonymous_from in the proxy's config).")
	}
	return notes
}

// hostsFiles are the hosts.toml files in a certs.d folder.
func hostsFiles(o Options, dir, ca, note string) (files []File) {
	host := hostsTOML{url: o.Proxy.URL(), ca: ca, login: o.Login}
	if len(o.Registries) == 0 {
		return []File{{Path: dir + "/_default/hosts.toml", part: host, Note: note}}
	}
	for _, registry := range o.Registries {
		host.server = server(registry)
		files = append(files, File{Path: dir + "/" + registry + "/hosts.toml", part: host, Note: note})
	}
	return files
}
