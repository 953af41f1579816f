package setup

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// lines ends each line with \n.
func lines(all ...string) string { return strings.Join(all, "\n") + "\n" }

// What is there already stays, to the byte, around what is added.
func TestMerges(t *testing.T) {
	t.Parallel()
	daemon := daemonJSON{"http://p:1", "p:1"}
	hosts := hostsTOML{url: "http://p:1"}
	build := buildkitTOML{host: "p:1", plain: true, names: []string{"docker.io", "ghcr.io"}}
	rancher := registriesYAML{url: "http://p:1", host: "p:1", names: []string{"*"}}
	for name, c := range map[string]struct {
		part       part
		text, want string
	}{
		"json: one line":            {daemon, `{"a": 1}`, `{"a": 1, "registry-mirrors": ["http://p:1"], "insecure-registries": ["p:1"]}`},
		"json: none, with newline":  {daemon, "{\n}\n", "{\n  \"registry-mirrors\": [\"http://p:1\"],\n  \"insecure-registries\": [\"p:1\"]\n}\n"},
		"json: empty file":          {daemon, " \n", "{\n  \"registry-mirrors\": [\"http://p:1\"],\n  \"insecure-registries\": [\"p:1\"]\n}\n"},
		"json: tabs, others' first": {daemonJSON{mirror: "http://p:1"}, "{\n\t\"registry-mirrors\": [\n\t\t\"https://other\"\n\t],\n\t\"z\": 1e3\n}", "{\n\t\"registry-mirrors\": [\n\t\t\"http://p:1\",\n\t\t\"https://other\"\n\t],\n\t\"z\": 1e3\n}"},
		"json: empty list":          {daemonJSON{mirror: "http://p:1"}, `{"registry-mirrors": [ ]}`, `{"registry-mirrors": ["http://p:1"]}`},
		"json: there, with a slash": {daemon, `{"registry-mirrors":["x","http:\/\/p:1\/"],"insecure-registries":["p:1"]}`, `{"registry-mirrors":["x","http:\/\/p:1\/"],"insecure-registries":["p:1"]}`},
		"json: windows":             {daemonJSON{mirror: "http://p:1"}, "{\r\n  \"a\": {\"registry-mirrors\": 1}\r\n}\r\n", "{\r\n  \"a\": {\"registry-mirrors\": 1},\r\n  \"registry-mirrors\": [\"http://p:1\"]\r\n}\r\n"},

		"config.toml: version 2, no plugin": {configPath{"/c"}, "version = 2\n", lines("version = 2", opens, `[plugins."io.containerd.grpc.v1.cri".registry]`, `  config_path = "/c"`, closes)},
		"config.toml: version 3": {
			configPath{"/c"},
			lines("version = 3", "[plugins.'io.containerd.cri.v1.images'.registry] # mine", "  [plugins.'io.containerd.cri.v1.images'.registry.headers]"),
			lines("version = 3", "[plugins.'io.containerd.cri.v1.images'.registry] # mine", opens, `  config_path = "/c"`, closes, "  [plugins.'io.containerd.cri.v1.images'.registry.headers]"),
		},
		"config.toml: version 1":          {configPath{"/c"}, "oom_score = 1\n", lines("oom_score = 1", opens, `[plugins.cri.registry]`, `  config_path = "/c"`, closes)},
		"config.toml: only comments":      {configPath{"/c"}, "# nothing", lines("# nothing", opens, "version = 2", `[plugins."io.containerd.grpc.v1.cri".registry]`, `  config_path = "/c"`, closes)},
		"config.toml: empty value":        {configPath{"/c"}, lines("version = 2", `[plugins."io.containerd.grpc.v1.cri".registry]`, "\tconfig_path = '' # none", "[x]"), lines("version = 2", `[plugins."io.containerd.grpc.v1.cri".registry]`, opens, "# was: \tconfig_path = '' # none", "\tconfig_path = \"/c\"", closes, "[x]")},
		"config.toml: dotted":             {configPath{"/c"}, lines("version = 2", `[plugins."io.containerd.grpc.v1.cri"]`, `registry.config_path = ""`), lines("version = 2", `[plugins."io.containerd.grpc.v1.cri"]`, opens, `# was: registry.config_path = ""`, `registry.config_path = "/c"`, closes)},
		"config.toml: a key in a string":  {configPath{"/c"}, lines("version = 2", `a = """`, `[plugins."io.containerd.grpc.v1.cri".registry]`, `"""`), lines("version = 2", `a = """`, `[plugins."io.containerd.grpc.v1.cri".registry]`, `"""`, opens, `[plugins."io.containerd.grpc.v1.cri".registry]`, `  config_path = "/c"`, closes)},
		"config.toml: only a table below": {configPath{"/c"}, lines("version = 2", `[plugins."io.containerd.grpc.v1.cri".registry.headers]`, "x = []"), lines("version = 2", `[plugins."io.containerd.grpc.v1.cri".registry.headers]`, "x = []", opens, `[plugins."io.containerd.grpc.v1.cri".registry]`, `  config_path = "/c"`, closes)},
		"config.toml: set":                {configPath{"/c"}, lines("version = 2", `plugins."io.containerd.grpc.v1.cri".registry.config_path = "/c"`), lines("version = 2", `plugins."io.containerd.grpc.v1.cri".registry.config_path = "/c"`)},
		"config.toml: windows":            {configPath{"/c"}, "version = 2\r\n[a]", "version = 2\r\n[a]\r\n" + strings.ReplaceAll(lines(opens, `[plugins."io.containerd.grpc.v1.cri".registry]`, `  config_path = "/c"`, closes), "\n", "\r\n")},

		"hosts.toml: before others": {
			hosts, lines(`server = "https://x"`, "", "# mine", "[host.'http://other']", "  ca = 'a'"),
			lines(`server = "https://x"`, "", opens, `[host."http://p:1"]`, `  capabilities = ["pull", "resolve"]`, `  dial_timeout = "1s"`, closes, "# mine", "[host.'http://other']", "  ca = 'a'"),
		},
		"hosts.toml: only a server": {hosts, `server = "https://x"`, lines(`server = "https://x"`, opens, `[host."http://p:1"]`, `  capabilities = ["pull", "resolve"]`, `  dial_timeout = "1s"`, closes)},
		"hosts.toml: there":         {hosts, lines("[host.'http://p:1']", "skip_verify = true"), lines("[host.'http://p:1']", "skip_verify = true")},

		"buildkitd.toml: mirrors of others": {
			build, lines("debug = true", `[registry."docker.io"]`, `  mirrors = ["m"] # mine`, "[registry.'ghcr.io']", "[worker.oci]"),
			lines("debug = true", `[registry."docker.io"]`, opens, `# was:   mirrors = ["m"] # mine`, `  mirrors = ["p:1", "m"]`, closes, "[registry.'ghcr.io']", opens, `  mirrors = ["p:1"]`, closes, "[worker.oci]", opens, `[registry."p:1"]`, "  http = true", closes),
		},

		"registries.yaml: others' mirrors": {
			rancher, lines("# mine", "mirrors:", "    docker.io:", "        endpoint: [\"https://m\"] # x", "configs: {}"),
			lines("# mine", "mirrors:", opens, `    "*":`, "      endpoint:", `        - "http://p:1"`, closes, "    docker.io:", "        endpoint: [\"https://m\"] # x", "configs: {}"),
		},
		"registries.yaml: the same, a list": {rancher, lines("mirrors:", "  '*':", "    endpoint:", "    - https://m"), lines("mirrors:", "  '*':", "    endpoint:", opens, `    - "http://p:1"`, closes, "    - https://m")},
		"registries.yaml: nothing below":    {rancher, lines("mirrors:", "configs:"), lines("mirrors:", opens, `  "*":`, "    endpoint:", `      - "http://p:1"`, closes, "configs:")},
		"registries.yaml: an empty one":     {rancher, lines("mirrors:  { } # none", "configs: {}"), lines(opens, "# was: mirrors:  { } # none", "mirrors:", `  "*":`, "    endpoint:", `      - "http://p:1"`, closes, "configs: {}")},
		"registries.yaml: no mirrors":       {rancher, "configs: {}", lines("configs: {}", opens, "mirrors:", `  "*":`, "    endpoint:", `      - "http://p:1"`, closes)},
		"registries.yaml: there":            {rancher, "mirrors: {'*': {endpoint: [x, 'http://p:1']}}", "mirrors: {'*': {endpoint: [x, 'http://p:1']}}"},
		"registries.yaml: only a comment":   {rancher, "# none\n", lines("# none", opens, "mirrors:", `  "*":`, "    endpoint:", `      - "http://p:1"`, closes)},

		"a certificate beside another": {certificates(ca), "another\n", "another\n" + opens + "\n" + ca + closes + "\n"},
		"a certificate that is there":  {certificates(ca), "x\n" + ca, "x\n" + ca},
	} {
		got, err := c.part.into([]byte(c.text))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v, got\n%s\nwant\n%s", name, err, got, c.want)
			continue
		}
		if again, err := c.part.into(got); err != nil || !bytes.Equal(again, got) {
			t.Errorf("%s: a second time gives %v\n%s", name, err, again)
		}
	}
}

// What can't be changed safely is refused, with what to add.
func TestRefusals(t *testing.T) {
	t.Parallel()
	daemon := daemonJSON{mirror: "http://p:1"}
	build := buildkitTOML{host: "p:1", plain: true, ca: "/x", names: []string{"docker.io"}}
	rancher := registriesYAML{url: "http://p:1", host: "p:1", names: []string{"*"}, ca: "/x"}
	for name, c := range map[string]struct {
		part          part
		text, why, by string
	}{
		"json: a comment":             {daemon, "{ // x\n}", "not valid JSON", "registry-mirrors"},
		"json: cut off":               {daemon, `{"a": `, "not valid JSON", "registry-mirrors"},
		"json: a trailing comma":      {daemon, `{"a": 1,}`, "not valid JSON", "registry-mirrors"},
		"json: a list":                {daemon, `[]`, "not valid JSON", "registry-mirrors"},
		"json: a key twice":           {daemon, `{"a": 1, "a": 2}`, "twice", "registry-mirrors"},
		"json: something behind":      {daemon, `{} {}`, "closing brace", "registry-mirrors"},
		"json: a byte order mark":     {daemon, "\ufeff{}", "not valid JSON", "registry-mirrors"},
		"json: no list":               {daemon, `{"registry-mirrors": "x"}`, "not a list of strings", "registry-mirrors"},
		"json: null":                  {daemon, `{"registry-mirrors": null}`, "not a list of strings", "registry-mirrors"},
		"json: numbers":               {daemon, `{"registry-mirrors": [1]}`, "not a list of strings", "registry-mirrors"},
		"config.toml: broken":         {configPath{"/c"}, "version = = 2", "not valid TOML", "config_path"},
		"config.toml: future":         {configPath{"/c"}, "version = 9", "its version is 9", "config_path"},
		"config.toml: inline":         {configPath{"/c"}, lines("version = 2", `[plugins]`, `"io.containerd.grpc.v1.cri" = {registry = {}}`), "its form", "config_path"},
		"hosts.toml: inline":          {hostsTOML{url: "http://p:1"}, "host = {}", "its form", "capabilities"},
		"buildkitd.toml: other http":  {build, lines(`[registry]`, `"p:1" = {http = false}`), "its form", "mirrors"},
		"buildkitd.toml: many lines":  {build, lines(`[registry."docker.io"]`, "mirrors = [", `"m"]`), "several lines", "mirrors"},
		"buildkitd.toml: no list":     {build, lines(`[registry."docker.io"]`, "mirrors = 'm'"), "not a list", "mirrors"},
		"registries.yaml: broken":     {rancher, "mirrors: [", "not valid YAML", "endpoint"},
		"registries.yaml: tabs":       {rancher, "mirrors:\n\t'*': {}", "not valid YAML", "endpoint"},
		"registries.yaml: two":        {rancher, "a: 1\n---\nb: 1\n", "several documents", "endpoint"},
		"registries.yaml: flow":       {rancher, "mirrors: {docker.io: {endpoint: [x]}}", "its form", "endpoint"},
		"registries.yaml: a list":     {rancher, "- mirrors", "not valid YAML", "endpoint"},
		"registries.yaml: configs":    {rancher, lines("configs:", `  "p:1": {auth: {username: x}}`), "already", "ca_file"},
		"registries.yaml: an ending":  {rancher, "a: 1\n...\n", "several documents", "endpoint"},
		"somebody's file of our name": {dropIn{[]string{"x = 1"}}, "y = 1", "somebody else", "x = 1"},
	} {
		got, err := c.part.into([]byte(c.text))
		by, ok := errors.AsType[*ByHand](err)
		if !ok || !strings.Contains(by.Why, c.why) || !strings.Contains(by.Add, c.by) {
			t.Errorf("%s: %v, got\n%s", name, err, got)
		}
	}
}

// Values go, and what others have done since stays.
func TestRevertJSON(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ before, after, now, want string }{
		"a key of others":    {`{}`, `{"m":["p"]}`, `{"a":1,"m":["p"],"b":2}`, `{"a":1,"b":2}`},
		"a value of others":  {`{"m":["o"]}`, `{"m":["p","o"]}`, "{\"m\": [\n \"p\",\n \"o\",\n \"q\"\n]}", "{\"m\": [\n \"o\",\n \"q\"\n]}"},
		"the last value":     {`{"m":["o"]}`, `{"m":["p","o"]}`, `{"m":["p"]}`, `{"m":[]}`},
		"the last key":       {`{"a":1}`, `{"a":1,"m":["p"]}`, `{"a":2,"m":["p"]}`, `{"a":2}`},
		"it was there":       {`{"m":["p"]}`, `{"m":["p"],"i":["p"]}`, `{"m":["p"],"i":["p"],"x":0}`, `{"m":["p"],"x":0}`},
		"it is gone":         {`{}`, `{"m":["p"]}`, `{"x":0}`, `{"x":0}`},
		"it is no list now":  {`{}`, `{"m":["p"]}`, `{"m":"p"}`, `{"m":"p"}`},
		"nothing else there": {"", `{"m":["p"]}`, `{ "m" : [ "p" ] }`, ""},
	} {
		var before []byte
		if c.before != "" {
			before = []byte(c.before)
		}
		got, err := revertJSON([]byte(c.now), before, []byte(c.after))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v, got %s, want %s", name, err, got, c.want)
		}
	}
}

func TestUnmarked(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a\n" + opens + "\nx\n" + closes + "\nb":                       "a\nb",
		"a\r\n  " + opens + " \r\n# was: y\r\nx\r\n" + closes + "\r\n": "a\r\ny\r\n",
		"a\n" + opens + "\nx\n":                                        "a\n" + opens + "\nx\n", // without an end it is not ours to judge
		closes + "\n":                                                  closes + "\n",
	} {
		if got := unmarked([]byte(text)); string(got) != want {
			t.Errorf("%q gives %q, want %q", text, got, want)
		}
	}
}

// FuzzMerge puts every part into whatever text: what was valid stays valid, a second time
// changes nothing, and without the part it is the same text again.
func FuzzMerge(f *testing.F) {
	for _, seed := range []string{
		`{"a": 1, "registry-mirrors": ["x"]}`, "version = 2\n[plugins]\n", "[host.'x']\nca='y'", "[registry.'docker.io']\nmirrors = ['a']\n", "mirrors:\n  a:\n    endpoint: [b]\n", "mirrors:\n  '*':\n    endpoint:\n    - b\n", "", "# x\r\n",
	} {
		f.Add([]byte(seed))
	}
	parts := map[string]part{
		"daemon.json": daemonJSON{"http://p:1", "p:1"}, "config.toml": configPath{"/etc/containerd/certs.d"}, "hosts.toml": hostsTOML{url: "http://p:1", ca: "/x"},
		"buildkitd.toml":  buildkitTOML{"p:1", true, "/x", []string{"docker.io", "ghcr.io"}},
		"registries.yaml": registriesYAML{"http://p:1", "p:1", []string{"docker.io", "*"}, "/x"},
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.Contains(text, []byte("oci-proxy setup")) {
			return
		}
		for name, p := range parts {
			got, err := p.into(bytes.Clone(text))
			if err != nil {
				if _, ok := errors.AsType[*ByHand](err); !ok {
					t.Fatalf("%s: %v is no refusal", name, err)
				}
				continue
			}
			if _, _, err := says(name, got); err != nil || name == "daemon.json" && !json.Valid(got) {
				t.Fatalf("%s is not valid any more: %v\n%q\n%q", name, err, text, got)
			}
			if again, err := p.into(bytes.Clone(got)); err != nil || !bytes.Equal(again, got) {
				t.Fatalf("%s changes again (%v):\n%q\n%q\n%q", name, err, text, got, again)
			}
			otherwise := append(bytes.Clone(got), '\n') // so that it has to look
			back, err := reverted(name, got, twofold{text, otherwise})
			if err != nil {
				t.Fatalf("%s can't be undone: %v\n%q\n%q", name, err, text, got)
			}
			if name != "daemon.json" && !bytes.Equal(back, text) && len(bytes.TrimSpace(text)) > 0 {
				t.Fatalf("%s is undone to\n%q, was\n%q", name, back, text)
			}
			if name == "daemon.json" {
				var was, is any
				if decodeJSON(text, &was) == nil && decodeJSON(back, &is) == nil && !reflect.DeepEqual(was, is) {
					t.Fatalf("%s is undone to\n%q, was\n%q", name, back, text)
				}
			}
		}
	})
}
