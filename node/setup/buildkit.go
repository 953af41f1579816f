package setup

import (
	"fmt"
)

// buildkit is the plan for buildkitd, on its own or in a builder of buildx.
func buildkit(o Options) (Plan, error) {
	const dir = "/etc/buildkit"
	p := Plan{Notes: o.usualNote("buildkitd")}
	part := buildkitTOML{host: o.Proxy.Host(), plain: o.Proxy.Plain(), names: o.listed()}
	if o.CA != nil {
		part.ca = dir + "/oci-proxy-ca.crt"
		p.Files = append(p.Files, File{Path: part.ca, part: certificates(o.CA), Note: "The authority that signed the proxy's certificate."})
	}
	p.Files = append(p.Files, File{Path: dir + "/buildkitd.toml", Merge: true, part: part, Note: "buildkitd reads it when it starts. All other settings stay."})
	p.Notes = append(p.Notes,
		"A builder of buildx in a container does not read the machine's file: docker buildx create --buildkitd-config "+dir+"/buildkitd.toml. One that is part of dockerd goes by Docker's files: run setup docker.",
		"If the proxy is down or refuses, buildkitd asks the registry itself.")
	if o.Login {
		p.Notes = append(p.Notes, fmt.Sprintf("The proxy asks for a login: docker login %s, where buildctl or docker buildx runs.", o.Proxy.Host()))
	}
	return p, nil
}
