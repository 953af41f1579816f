package setup

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// A criState is what a machine's config of containerd says of its CRI plugin.
type criState struct {
	off  bool   // it is disabled
	path string // its config_path, "" for none
}

// surveyCRI reads containerd's config on a machine, and what it imports. It is an error if
// setting config_path there would keep containerd from starting, or would do nothing.
func surveyCRI(m *Machine, file string) (state criState, err error) {
	text, err := m.own(file)
	if err != nil || text == nil {
		return state, err
	}
	says := sound(text) // the part refuses what is not
	names := []string{"cri", "io.containerd.grpc.v1.cri"}
	if disabled, ok := says["disabled_plugins"].([]any); ok {
		state.off = slices.ContainsFunc(disabled, func(v any) bool { s, _ := v.(string); return slices.Contains(names, s) })
	}
	if state.off {
		return state, nil
	}
	if state.path, err = configPathOf(says, file); err != nil || state.path != "" {
		return state, err
	}
	for _, imported := range m.imports(file, says) {
		text, err := m.own(imported)
		if err != nil {
			return state, err
		}
		more := sound(text) // containerd itself complains of what is not
		if state.path, err = configPathOf(more, imported); err != nil || state.path != "" {
			return state, err
		}
		if path, ok := cri[versionOf(more)]; ok && lookUp(more, path[:2]...) != nil {
			return state, &ByHand{file, imported + ", which it imports, has settings of the CRI plugin that would take the place of those here", configPath{"/etc/containerd/certs.d"}.byHand(versionOf(more))}
		}
	}
	return state, nil
}

// sound is what a TOML text says, nothing if it is not valid.
func sound(text []byte) map[string]any {
	says, _, err := readTOML(text)
	if err != nil {
		return nil
	}
	return says
}

// configPathOf is the first folder of config_path in a config of containerd, "" for none.
func configPathOf(says map[string]any, file string) (string, error) {
	version := versionOf(says)
	where, ok := cri[version]
	if !ok {
		return "", nil
	}
	value, _ := lookUp(says, append(slices.Clone(where), "config_path")...).(string)
	if first, _, _ := strings.Cut(value, ":"); first != "" {
		if !path.IsAbs(first) || path.Clean(first) != first || strings.ContainsAny(first, "\"\\\n") {
			return "", fmt.Errorf("%s: config_path is %q, which is not a plain absolute path", file, value)
		}
		return first, nil
	}
	if mirrors, ok := lookUp(says, append(slices.Clone(where), "mirrors")...).(map[string]any); ok && len(mirrors) > 0 {
		return "", &ByHand{
			file, "it has registry.mirrors, the older way, and containerd does not start with both that and config_path. Move the mirrors to hosts.toml files first",
			configPath{"/etc/containerd/certs.d"}.byHand(version),
		}
	}
	configs, _ := lookUp(says, append(slices.Clone(where), "configs")...).(map[string]any)
	for host := range configs {
		if lookUp(configs, host, "tls") != nil {
			return "", &ByHand{
				file, "it has registry.configs with tls, the older way, and containerd does not start with both that and config_path. Move them to hosts.toml files first",
				configPath{"/etc/containerd/certs.d"}.byHand(version),
			}
		}
	}
	return "", nil
}

// surveyContainers returns the file that has an entry for a registry, by registry, of those that
// podman reads. own is not looked at.
func surveyContainers(m *Machine, dir, own string) (taken map[string]string, err error) {
	taken = map[string]string{}
	for _, file := range append([]string{dir + "/registries.conf"}, m.glob(dir+"/registries.conf.d/*.conf")...) {
		if file == own {
			continue
		}
		text, err := m.own(file)
		if err != nil {
			return nil, err
		}
		says, _, err := readTOML(text)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", file, err)
		}
		if _, old := says["registries"].(map[string]any); old {
			return nil, &ByHand{file, "it is in the first version of the format, which podman does not take together with files of the second", "(write its entries as [[registry]] first; then run setup again)"}
		}
		entries, _ := says["registry"].([]any)
		for _, e := range entries {
			entry, _ := e.(map[string]any)
			name, _ := entry["prefix"].(string)
			if name == "" {
				name, _ = entry["location"].(string)
			}
			taken[name] = file
		}
	}
	return taken, nil
}
