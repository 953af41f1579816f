package setup

import "fmt"

// k3s is the plan for k3s, which writes containerd's files itself, from registries.yaml.
func k3s(o Options) (Plan, error) {
	const dir = "/etc/rancher/k3s"
	p := Plan{}
	part := registriesYAML{url: o.Proxy.URL(), host: o.Proxy.Host(), names: o.Registries}
	if len(o.Registries) == 0 {
		part.names = []string{"*"}
	}
	if o.CA != nil {
		part.ca = dir + "/oci-proxy-ca.crt"
		p.Files = append(p.Files, File{Path: part.ca, part: certificates(o.CA), Note: "The authority that signed the proxy's certificate."})
	}
	p.Files = append(p.Files, File{Path: dir + "/registries.yaml", Merge: true, part: part, Note: "k3s reads it when it starts, on servers and agents alike. All other entries stay."})
	p.Notes = append(p.Notes, "A restart of k3s leaves pods running. Each node of the cluster needs the file.",
		"If the proxy is down or refuses, k3s asks the registry itself, unless it runs with --disable-default-registry-endpoint.")
	if len(o.Registries) == 0 {
		p.Notes = append(p.Notes, `A registry with an entry of its own under mirrors goes by that entry and not by "*".`)
	}
	if o.Login {
		p.Notes = append(p.Notes, fmt.Sprintf("The proxy asks for a login: add auth with username and password for %q under configs, and make the file readable to root only.", o.Proxy.Host()))
	}
	return p, nil
}
