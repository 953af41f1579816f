package setup

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// configPath is what setup adds to containerd's config.toml: where hosts.toml files are.
type configPath struct{ dir string }

// cri are the ways in which config.toml names the registry part of the CRI plugin, by the
// version that it begins with. Version 1 has none, version 4 has that of 3.
var cri = map[int64][]string{
	1: {"plugins", "cri", "registry"},
	2: {"plugins", "io.containerd.grpc.v1.cri", "registry"},
	3: {"plugins", "io.containerd.cri.v1.images", "registry"},
	4: {"plugins", "io.containerd.cri.v1.images", "registry"},
}

func (c configPath) into(text []byte) ([]byte, error) {
	value := fmt.Sprintf("%q", c.dir)
	says, _, err := readTOML(text)
	if err != nil {
		return nil, refuse("it is not valid TOML: "+err.Error(), c.byHand(2))
	}
	if len(says) == 0 { // containerd 2 understands version 2, containerd 1 nothing newer
		return checked(insert(text, len(text), marked("version = 2", "["+header(cri[2])+"]", "  config_path = "+value)), c.byHand(2))
	}
	version := versionOf(says)
	path, ok := cri[version]
	if !ok {
		return nil, refuse(fmt.Sprintf("its version is %d, and setup knows 1 to 4", version), c.byHand(3))
	}
	now, err := settled(text, []setting{{path, "config_path", value, c.dir}})
	if err != nil {
		return nil, refuse(err.Error(), c.byHand(version))
	}
	return now, nil
}

func (c configPath) byHand(version int64) string {
	return fmt.Sprintf("[%s]\n  config_path = %q", header(cri[version]), c.dir)
}

// versionOf is the version of a config.toml.
func versionOf(says map[string]any) int64 {
	if v, ok := says["version"].(int64); ok {
		return v
	}
	return 1
}

// hostsTOML is what setup adds to a hosts.toml: a host that is asked before all others.
type hostsTOML struct {
	server string // where the registry itself answers; "": at its own name
	url    string // of the proxy
	ca     string // path, "" for none
	login  bool
}

// lines say that the proxy is asked.
func (h hostsTOML) lines() []string {
	name := fmt.Sprintf("host.%q", h.url)
	lines := []string{"[" + name + "]", `  capabilities = ["pull", "resolve"]`, `  dial_timeout = "1s"`}
	if h.ca != "" {
		lines = append(lines, fmt.Sprintf("  ca = %q", h.ca))
	}
	if h.login {
		lines = append(lines,
			"# The proxy asks for a login. Write it below this part, as base64 of user:password:",
			"# ["+name+".header]",
			`#   Authorization = "Basic …"`)
	}
	return lines
}

func (h hostsTOML) into(text []byte) ([]byte, error) {
	add := h.lines()
	if len(bytes.TrimSpace(text)) == 0 {
		if h.server != "" {
			add = append([]string{fmt.Sprintf("server = %q", h.server), ""}, add...)
		}
		return checked(insert(text, len(text), marked(add...)), strings.Join(add, "\n"))
	}
	says, lines, err := readTOML(text)
	if err != nil {
		return nil, refuse("it is not valid TOML: "+err.Error(), strings.Join(add, "\n"))
	}
	if lookUp(says, "host", h.url) != nil {
		return text, nil
	}
	at := len(text)
	if i := slices.IndexFunc(lines, func(l line) bool { return l.path[0] == "host" }); i >= 0 {
		at = aboveComments(text, lines[i].from)
	}
	now := insert(text, at, marked(add...))
	own, _, _ := readTOML([]byte(strings.Join(add, "\n"))) // ours is valid
	got, _, err := readTOML(now)
	if err != nil || !set(says, lookUp(own, "host", h.url), "host", h.url) || !reflect.DeepEqual(got, says) {
		return nil, refuse(errForm.Error(), strings.Join(add, "\n"))
	}
	return now, nil
}

// checked returns a text that is valid TOML, and refuses any other.
func checked(text []byte, byHand string) ([]byte, error) {
	if _, _, err := readTOML(text); err != nil {
		return nil, refuse(errForm.Error(), byHand)
	}
	return text, nil
}

// aboveComments is where the comments begin that stand right above a line.
func aboveComments(text []byte, at int) int {
	for at > 0 {
		up := lineStart(text, at-1)
		if !strings.HasPrefix(strings.TrimSpace(string(text[up:at])), "#") {
			break
		}
		at = up
	}
	return at
}

// buildkitTOML is what setup adds to buildkitd.toml: the proxy as first mirror of registries, and
// how it is reached.
type buildkitTOML struct {
	host  string
	plain bool
	ca    string // path, "" for none
	names []string
}

func (b buildkitTOML) into(text []byte) ([]byte, error) {
	says, _, err := readTOML(text)
	if err != nil {
		return nil, refuse("it is not valid TOML: "+err.Error(), b.byHand())
	}
	var all []setting
	for _, name := range b.names {
		mirrors, ok := lookUp(says, "registry", name, "mirrors").([]any)
		if !ok && lookUp(says, "registry", name, "mirrors") != nil {
			return nil, refuse("the mirrors of "+name+" are not a list", b.byHand())
		}
		if !slices.Contains(mirrors, any(b.host)) {
			mirrors = append([]any{b.host}, mirrors...)
		}
		all = append(all, setting{[]string{"registry", name}, "mirrors", list(mirrors), mirrors})
	}
	now, err := settled(text, append(all, b.reached()...))
	if err != nil {
		return nil, refuse(err.Error(), b.byHand())
	}
	return now, nil
}

// reached says how the proxy is reached, where that is not the usual way.
func (b buildkitTOML) reached() (all []setting) {
	path := []string{"registry", b.host}
	if b.plain {
		all = append(all, setting{path, "http", "true", true})
	}
	if b.ca != "" {
		cas := []any{b.ca}
		all = append(all, setting{path, "ca", list(cas), cas})
	}
	return all
}

func (b buildkitTOML) byHand() string {
	text, _ := b.into(nil) // an empty text takes all
	return string(unframed(text))
}

// list writes a list of strings as TOML has it.
func list(values []any) string {
	var parts []string
	for _, v := range values {
		parts = append(parts, fmt.Sprintf("%q", v))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// unframed returns a part without its marks.
func unframed(text []byte) []byte {
	var kept []byte
	for l := range bytes.Lines(text) {
		if bare := strings.TrimSpace(string(l)); bare != opens && bare != closes {
			kept = append(kept, l...)
		}
	}
	return kept
}
