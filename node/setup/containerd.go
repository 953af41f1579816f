package setup

import (
	"fmt"
)

// containerd is the plan for containerd: hosts.toml for all registries or for each, which it
// reads at each pull, and config_path, by which its CRI plugin finds them.
func containerd(o Options) (Plan, error) {
	const dir = "/etc/containerd"
	certs := dir + "/certs.d"
	p := Plan{}
	found, err := surveyCRI(o.Machine, dir+"/config.toml")
	if err != nil {
		return Plan{}, err
	}
	switch {
	case found.off:
		p.Notes = append(p.Notes, "The CRI plugin is disabled in "+dir+"/config.toml, so config_path is not set there. nerdctl and ctr --hosts-dir "+certs+" read the files without it.")
		p.readAtOnce = true
	case found.path != "":
		certs = found.path
		p.readAtOnce = true
	default:
		p.Files = append(p.Files, File{Path: dir + "/config.toml", Merge: true, part: configPath{certs}, Note: "config_path tells containerd's CRI plugin, and so Kubernetes, where the hosts.toml files are."})
	}
	ca := ""
	if o.CA != nil {
		ca = certs + "/" + o.Proxy.Host() + "/ca.crt"
		p.Files = append(p.Files, File{Path: ca, part: certificates(o.CA), Note: "The authority that signed the proxy's certificate."})
	}
	p.Files = append(p.Files, hostsFiles(o, certs, ca, "Read at each pull, without a restart.")...)
	p.Notes = append(p.Notes,
		"A restart of containerd leaves containers running. It is needed only if config.toml changes; hosts.toml is read at each pull.",
		"ctr needs --hosts-dir "+certs+".",
		"If the proxy is down or refuses, containerd asks the registry itself, after a second at most for a proxy that does not answer.")
	if len(o.Registries) == 0 {
		p.Notes = append(p.Notes, "A registry with a folder of its own in "+certs+" goes by that folder and not by _default.")
	}
	if o.Login {
		p.Notes = append(p.Notes, fmt.Sprintf("The proxy asks for a login: add an Authorization header for %s, as hosts.toml shows, and make the file readable to root only.", o.Proxy.Host()))
	}
	return p, nil
}
