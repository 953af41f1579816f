package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// auth is that of a proxy with a login.
const auth = "auth: {username: bob, password: x7, anonymous_from: [10.0.0.0/8]}\n"

// doubtful lists configs that are valid, and each warning about them, as the beginning of
// its line. DIR stands for a directory with the files that the test below makes.
var doubtful = []struct{ name, text, want string }{
	// sizes
	{"gigabytes without a unit", "defaults: {cache_max_size: 10}", `c.yaml:1:28: defaults.cache_max_size: warning: "10" means 10 bytes, so next to nothing is cached; write 10g if GiB are meant`},
	{"a registry's gigabytes", "registries: {a.io: {cache_max_size: 500}}", `c.yaml:1:37: registries.a.io.cache_max_size: warning: "500" means 500 bytes`},
	{"certificates at another port", "port: 5000\ntls: {acme: {domains: [a.example.com]}}", `c.yaml:2:23: tls.acme.domains: warning: the certificate authority connects to port 443 of each name, and this node listens on 5000; set port: 443, or let port 443`},
	{"certificates for other names", "port: 443\nbase_url: https://b.example.com\ntls: {acme: {domains: [a.example.com]}}", `c.yaml:2:11: base_url: warning: "b.example.com" is not among tls.acme.domains`},
	{"public certificates for a name of one's own", "port: 443\ntls: {acme: {domains: [proxy.internal]}}", `c.yaml:2:24: tls.acme.domains[0]: warning: "proxy.internal" is a name of your own network`},
	{"certificates without a way out", "port: 443\ntls: {acme: {domains: [a.example.com]}}\ncluster: {secret: 83hf0s8dhq3n5cxv, egress: false}", `c.yaml:3:45: cluster.egress: warning: is false, so this node asks for no certificate itself`},
	{"a quoted number", "defaults: {cache_max_size: '100000'}", `c.yaml:1:28: defaults.cache_max_size: warning: "100000" means 100000 bytes`},
	{"kilobytes", "defaults: {cache_max_size: 10k}", `c.yaml:1:28: defaults.cache_max_size: warning: "10k" is less than almost every image layer`},
	{"enough", "defaults: {cache_max_size: 1024k}\nregistries: {a.io: {cache_max_size: 0}, b.io: {cache_max_size: 10737418240}, c.io: {cache_max_size: 10GiB}, d.io: {cache_max_size: 10Gi}, e.io: {cache_max_size: 10GB}}", ""},
	{"megabytes a second without a unit", "registries: {a.io: {upstream_rate: 10}}", `c.yaml:1:36: registries.a.io.upstream_rate: warning: "10" means 10 bytes a second, so pulls last until clients give up; write 10m if MiB are meant`},
	{"next to nothing a second", "registries: {a.io: {upstream_rate: 4k}, b.io: {upstream_rate: 1m, upstream_requests: 1}}", `c.yaml:1:36: registries.a.io.upstream_rate: warning: "4k" is so little a second`},
	{"seconds", "defaults: {max_idle: 30s}\nregistries: {a.io: {max_idle: 0}, b.io: {max_idle: 30d}}", `c.yaml:1:22: defaults.max_idle: warning: "30s" is so short that content goes between two pulls`},
	// secrets
	{"a variable of the shell", "auth: {username: u, password: $PASS}", `c.yaml:1:31: auth.password: warning: the value looks like a variable or a template that was not replaced, and is used as it stands: only ${NAME} is replaced, by the environment; or set auth.password_file`},
	{"one in lower case", "auth: {username: u, password: $sesame}", `c.yaml:1:31: auth.password: warning: the value looks like a variable`},
	{"a variable of Windows", "auth: {username: u, password: '%SESAME%'}", `c.yaml:1:31: auth.password: warning: the value looks like a variable`},
	{"a variable of Kubernetes", "registries: {a.io: {auth: {username: u, password: $(SESAME)}}}", `c.yaml:1:51: registries.a.io.auth.password: warning: the value looks like a variable or a template that was not replaced, and is used as it stands: only ${NAME} is replaced, by the environment; or set registries.a.io.auth.password_file`},
	{"a variable of PowerShell", "auth: {username: u, password: '$env:SESAME'}", `c.yaml:1:31: auth.password: warning: the value looks`},
	{"a chart's template", "auth: {username: u, password: '{{ .Values.sesame }}'}", `c.yaml:1:31: auth.password: warning: the value looks`},
	{"a placeholder", "auth: {username: u, password: <sesame>}", `c.yaml:1:31: auth.password: warning: the value looks`},
	{"a variable in a value that there is", "auth: {username: u, password: 'x$SESAME'}", `c.yaml:1:31: auth.password: warning: the value looks`},
	{"a dollar sign that names no variable", "auth: {username: 'robot$x', password: 'a$b1%c'}", ""},
	{"a variable in a variable", "auth: {username: u, password: '${NESTED}'}", `c.yaml:1:31: auth.password: warning: the value looks`},
	{"a variable in a password_file", "auth: {username: u, password_file: DIR/variable}", `c.yaml:1:36: auth.password: warning: the value looks`},
	{"a variable for a user", "auth: {username: $SESAME, password: x7}", `c.yaml:1:18: auth.username: warning: the value looks like a variable`},
	{"a variable in a proxy's login", "defaults: {upstream_proxy: 'http://u:$SESAME@p:1'}", `c.yaml:1:28: defaults.upstream_proxy: warning: the login in the URL looks like a variable`},
	{"a variable for a cluster's secret", "cluster: {secret: '$CLUSTER_SESAME_SECRET'}", `c.yaml:1:19: cluster.secret: warning: the value looks`},
	{"a variable in a list of secrets", "cluster: {secrets: [\"0f3a9c17e8b24d65\", '%CLUSTER_SESAME_SECRET%']}", `c.yaml:1:41: cluster.secrets[1]: warning: the value looks`},
	{"a file in place of a password", "auth: {username: u, password: /run/secrets/sesame}", `c.yaml:1:31: auth.password: warning: the value looks like the name of a file, and is used as it stands; set auth.password_file to read the file`},
	{"a file that there is", "registries: {a.io: {auth: {username: u, password: DIR/variable}}}", `c.yaml:1:51: registries.a.io.auth.password: warning: the value looks like the name of a file`},
	{"the password of an example", "registries: {a.io: {auth: {username: robot, password: …}}}", `c.yaml:1:55: registries.a.io.auth.password: warning: the value looks like one from an example`},
	{"another one", "auth: {username: u, password: Change-Me}", `c.yaml:1:31: auth.password: warning: the value looks like one from an example`},
	{"a secret of an example", "cluster: {secret: please-change-me-soon}", `c.yaml:1:19: cluster.secret: warning: the value looks like one from an example`},
	{"the command for a secret", "cluster: {secret: openssl rand -hex 32}", `c.yaml:1:19: cluster.secret: warning: the value looks like one from an example`},
	{"a secret that counts", "cluster: {secret: 0123456789abcdef}", `c.yaml:1:19: cluster.secret: warning: the secret is easy to guess`},
	{"a secret that repeats", "cluster: {secret: sesamesesamesesame}", `c.yaml:1:19: cluster.secret: warning: the secret is easy to guess`},
	{"a good secret", "cluster: {secret: 0f3a9c17e8b24d650f3a9c17e8b24d65}", ""},
	// logins
	{"a command that is not here", "registries: {a.io: {auth: {exec: [no-such-program, sesame]}, accounts: [{exec: [/no/such/program]}]}}", `c.yaml:1:34: registries.a.io.auth.exec: warning: the program "no-such-program" cannot be run here: executable file not found in $PATH
c.yaml:1:80: registries.a.io.accounts[0].exec: warning: the program "/no/such/program" cannot be run here: no such file or directory`},
	{"a file that cannot be run", "registries: {a.io: {auth: {exec: [DIR/variable]}}}", `c.yaml:1:34: registries.a.io.auth.exec: warning: the program "`},
	{"a command that is here", "registries: {a.io: {auth: {exec: [sh, -c, $SESAME]}}}", ""},
	// registries
	{"Docker Hub's web site", "registries: {hub.docker.com: {auth: {username: u, password: x7}}}", `c.yaml:1:14: registries.hub.docker.com: warning: "hub.docker.com" is not the registry's name: what is set here does not apply to images of docker.io; write docker.io`},
	{"Docker Hub's token server", "registries: {auth.docker.io: {}}", `c.yaml:1:14: registries.auth.docker.io: warning: "auth.docker.io" is not the registry's`},
	{"GitHub", "registries: {GitHub.com: {}}", `c.yaml:1:14: registries.GitHub.com: warning: "GitHub.com" is not the registry's name: what is set here does not apply to images of ghcr.io; write ghcr.io`},
	{"a default registry that is none", "default_registry: hub.docker.com", `c.yaml:1:19: default_registry: warning: "hub.docker.com" is not the registry's`},
	{"the port of https", "registries: {'ghcr.io:443': {}, 'docker.io:443': {}}", `c.yaml:1:14: registries.ghcr.io:443: warning: "ghcr.io:443" has a port
c.yaml:1:33: registries.docker.io:443: warning: "docker.io:443" has a port, and a port is part of a registry's name: what is set here does not apply to images of docker.io; write docker.io`},
	{"the names of Docker Hub", "registries: {docker.io: {auth: {username: u, password: x7}}}", ""},
	{"another name of Docker Hub", "registries: {index.docker.io: }", ""},
	// access and admins
	{"a rule after one that takes all", "access:\n- {allow: ['**']}\n- {deny: [a.io/x]}", `c.yaml:3:3: access[1]: warning: never decides: earlier rules match all that it matches`},
	{"a rule after two that take all", "access: [{deny: ['a.io/**']}, {allow: ['*.io/lib/*']}, {deny: [a.io/x, b.io/lib/y]}]", `c.yaml:1:56: access[2]: warning: never decides`},
	{"a rule for one after that for all", auth + "access: [{users: ['*'], deny: ['a.io/**']}, {users: [bob, anonymous], allow: ['a.io/*/x']}]", `c.yaml:2:45: access[1]: warning: never decides`},
	{"rules that all count", auth + "access: [{users: [bob], allow: ['a.io/**']}, {users: [anonymous], deny: ['a.io/**']}, {deny: ['a.io/*']}, {deny: ['a.io/**/x', '*.io/y']}]", ""},
	{"a user whom nobody knows", auth + "access: [{users: [bbo], deny: ['**']}]", `c.yaml:2:19: access[0].users[0]: warning: "bbo" is neither auth.username nor in auth.htpasswd_file, so nobody is (did you mean bob?)`},
	{"a user of no login", "access: [{users: [bob], deny: ['**']}]", `c.yaml:1:19: access[0].users[0]: warning: "bob" is nobody: no login is configured, so all clients are anonymous`},
	{"nobody without a login", "auth: {username: bob, password: x7}\naccess: [{users: [anonymous], deny: ['**']}]", `c.yaml:2:19: access[0].users[0]: warning: nobody is anonymous`},
	{"a rule for Docker Hub's web site", "access: [{deny: ['hub.docker.com/**']}]", `c.yaml:1:18: access[0].deny[0]: warning: "hub.docker.com/**" is not the registry's name: what is set here does not apply to images of docker.io; write docker.io`},
	{"an admin whom nobody knows", "auth: {username: bob, password: x7, admins: [bob, eve]}", `c.yaml:1:51: auth.admins[1]: warning: "eve" is neither auth.username nor in auth.htpasswd_file, so nobody is`},
	{"an admin of no login", "auth: {admins: [bob]}", `c.yaml:1:17: auth.admins[0]: warning: "bob" is neither`},
	// mirrors
	{"a mirror with a login", "registries: {a.io: {mirrors: [b.io, c.io]}, b.io: {auth: {username: u, password: x7}}}", `c.yaml:1:31: registries.a.io.mirrors[0]: warning: has a login or is private, so a.io counts as private`},
	{"a mirror with a login, and all is public", "registries: {a.io: {private: false, mirrors: [b.io]}, b.io: {auth: {username: u, password: x7}}}", ""},
	{"trust in vain", "registries: {a.io: {private: true, mirrors: [b.io, {host: c.io, tags: true}]}}", `c.yaml:1:52: registries.a.io.mirrors[1]: warning: is trusted for tags in vain`},
	{"a mirror that is offline", "registries: {a.io: {mirrors: ['b.io:443']}, b.io: {offline: true}}", `c.yaml:1:31: registries.a.io.mirrors[0]: warning: is never asked`},
	// networks
	{"everybody trusted", "trusted_proxies: [0.0.0.0/0]", `c.yaml:1:19: trusted_proxies: warning: holds 0.0.0.0/0: any client there can forge its address by X-Forwarded-For`},
	{"everybody trusted, IPv6", "trusted_proxies:\n- '::/0'", `c.yaml:2:3: trusted_proxies: warning: holds ::/0:`},
	{"both halves", "trusted_proxies: [128.0.0.0/1, 0.0.0.0/1]", `c.yaml:1:19: trusted_proxies: warning: holds 0.0.0.0/0:`},
	{"four quarters", "trusted_proxies: [0.0.0.0/2, 64.0.0.0/2, 128.0.0.0/2, 192.0.0.0/2]", `c.yaml:1:19: trusted_proxies: warning: holds 0.0.0.0/0:`},
	{"one half", "trusted_proxies: [0.0.0.0/1]", `c.yaml:1:19: trusted_proxies: warning: holds 0.0.0.0/1:`},
	{"all of IPv6 that is public", "trusted_proxies: ['2000::/3']", `c.yaml:1:19: trusted_proxies: warning: holds 2000::/3:`},
	{"both", "trusted_proxies: [10.0.0.0/8, 0.0.0.0/0, '::/1', '8000::/1']", `c.yaml:1:19: trusted_proxies: warning: holds 0.0.0.0/0:
c.yaml:1:19: trusted_proxies: warning: holds ::/0:`},
	{"all of IPv4, wrapped", "trusted_proxies: ['::ffff:0.0.0.0/96']", `c.yaml:1:19: trusted_proxies: warning: holds 0.0.0.0/0:`},
	{"everybody may pull", "auth: {username: u, password: x7, anonymous_from: [0.0.0.0/0]}", `c.yaml:1:52: auth.anonymous_from: warning: holds 0.0.0.0/0: any client there may pull without a login`},
	{"everything may be led to", "allow_addresses: [0.0.0.0/0]", `c.yaml:1:19: allow_addresses: warning: holds 0.0.0.0/0:`},
	{"private networks", "trusted_proxies: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 'fc00::/7', 'fe80::/10', 127.0.0.0/8]", ""},
	{"host bits", "trusted_proxies: [10.1.2.3/8]", `c.yaml:1:19: trusted_proxies[0]: warning: "10.1.2.3/8" means the whole network 10.0.0.0/8; write 10.1.2.3/32 for that address alone`},
	{"host bits, IPv6", "registries: {a.io: {allow_addresses: ['fd00::1/8']}}", `c.yaml:1:39: registries.a.io.allow_addresses[0]: warning: "fd00::1/8" means the whole network fd00::/8`},
	// names and paths
	{"a base URL with a path", "base_url: https://p.example/cache/", `c.yaml:1:11: base_url: warning: "https://p.example/cache/" has a path, which is not used: clients pull from p.example`},
	{"a base URL", "base_url: https://p.example/", ""},
	{"a home directory", "defaults: {cache_dir: ~/cache}", `c.yaml:1:23: defaults.cache_dir: warning: "~/cache" is used as it stands`},
	{"a variable in a path", "defaults: {cache_dir: $HOME/cache}", `c.yaml:1:23: defaults.cache_dir: warning: "$HOME/cache" is used as it stands`},
	{"seeds at the peers' port", "cluster: {secret: 0f3a9c17e8b24d65, seeds: ['n1:7947', 'n2:7946', 'n3:80', 'n4:9000']}", `c.yaml:1:45: cluster.seeds[0]: warning: "n1:7947" has the port that this node has for other nodes' requests (cluster.peer_addr); seeds have the gossip port, here 7946 (cluster.bind_addr)
c.yaml:1:67: cluster.seeds[2]: warning: "n3:80" has the port that this node has for clients;`},
}

func TestDoubtfulConfigsAreTakenWithWarnings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "variable"), []byte("$SESAME\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range doubtful {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, err := Parse("c.yaml", []byte(strings.ReplaceAll(test.text, "DIR", dir)), []string{"SESAME=sesame", "NESTED=$SESAME"})
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			if test.want != "" {
				want = strings.Split(test.want, "\n")
			}
			if len(c.Warnings) != len(want) {
				t.Fatalf("got\n%s\nwant\n%s", c.Warnings, test.want)
			}
			for i, w := range c.Warnings {
				if !strings.HasPrefix(w.Error(), want[i]) {
					t.Errorf("got\n%s\nwant\n%s", w, want[i])
				}
				if strings.Contains(strings.ToLower(w.Error()), "sesame") && !strings.Contains(test.text, "DIR") {
					t.Errorf("the warning shows a secret: %s", w)
				}
			}
		})
	}
}

// Warnings come with the errors, all at once and in order of place.
func TestWarningsComeWithErrors(t *testing.T) {
	t.Parallel()
	_, err := Parse("c.yaml", []byte("trusted_proxies: [0.0.0.0/0]\nport: x\ndefaults: {cache_max_size: 10}"), []string{"OCI_PROXY_AUTH__USERNAME=u", "OCI_PROXY_AUTH__PASSWORD=$PASS"})
	all, ok := errors.AsType[Problems](err)
	if !ok || len(all) != 4 || !all[0].Warning || all[1].Warning || !all[2].Warning || !strings.HasPrefix(all[3].Error(), "environment OCI_PROXY_AUTH__PASSWORD: warning: ") {
		t.Errorf("got\n%v", err)
	}
}

func TestDurationsInDaysAndWeeks(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "2w": 14 * day, "1d12h": 36 * time.Hour, "1w2d3h4m": 9*day + 3*time.Hour + 4*time.Minute, "1.5d": 36 * time.Hour, ".5w": 84 * time.Hour,
		"0d": 0, "720h": 30 * day, "90s": 90 * time.Second, "0": 0, "1d1ms": day + time.Millisecond, "10000d": 10000 * day,
	} {
		c := must(t, "verify_interval: "+text+"\nshutdown_timeout: "+text+"\nqueue_timeout: "+text+"\nregistries: {a.io: {tag_ttl: "+text+", stale_if_error: "+text+"}}")
		r, _ := c.Registry("a.io")
		for _, got := range []time.Duration{c.VerifyInterval, c.ShutdownTimeout, c.QueueTimeout, r.TagTTL, r.StaleIfError} {
			if got != want {
				t.Errorf("%s: got %s, want %s", text, got, want)
			}
		}
		if c := must(t, "", "OCI_PROXY_VERIFY_INTERVAL="+text); c.VerifyInterval != want {
			t.Errorf("%s in the environment: %s", text, c.VerifyInterval)
		}
	}
}

// Bounds that are larger than the disk are told with both figures.
func TestBoundsLargerThanTheDisk(t *testing.T) {
	t.Parallel()
	on := func(dir string) (disk, error) {
		switch {
		case strings.HasPrefix(dir, "/gone"):
			return disk{}, errors.New("gone")
		case strings.HasPrefix(dir, "/other"):
			return disk{2, 50 << 30}, nil
		}
		return disk{1, 76 << 30}, nil
	}
	for _, c := range []struct{ name, text, want string }{
		{"larger", "defaults: {cache_dir: /c, cache_max_size: 100t}", `c.yaml:1:43: defaults.cache_max_size: warning: 100.0 TiB is more than the disk of /c has, 76.0 GiB: the cache grows until the disk is full`},
		{"a registry's", "defaults: {cache_dir: /c}\nregistries: {a.io: {cache_dir: /other, cache_max_size: 51g}}", `c.yaml:2:56: registries.a.io.cache_max_size: warning: 51.0 GiB is more than the disk of /other has, 50.0 GiB`},
		{"a share that enlarges the store", "defaults: {cache_dir: /c}\nregistries: {a.io: {cache_max_size: 1t}}", `c.yaml:2:37: registries.a.io.cache_max_size: warning: 1.0 TiB is more than`},
		{"a default", "defaults: {cache_dir: /other, cache_max_size: 60g}\nregistries: {a.io: {cache_dir: /other/a}}", "c.yaml:1:47: defaults.cache_max_size: warning: 60.0 GiB is more than the disk of /other has, 50.0 GiB\nc.yaml:1:47: defaults.cache_max_size: warning: 60.0 GiB is more than the disk of /other/a has"},
		{"two together", "defaults: {cache_dir: /c, cache_max_size: 40g}\nregistries: {a.io: {cache_dir: /d, cache_max_size: 40g}}", `c.yaml:2:52: registries.a.io.cache_max_size: warning: 40.0 GiB and the bounds of 1 more cache directories on the disk of /d are 80.0 GiB together, and the disk has 76.0 GiB`},
		{"in the environment", "defaults: {cache_dir: /c}", ""},
		{"none", "defaults: {cache_dir: /c, cache_max_size: 0}", ""},
		{"no disk", "defaults: {cache_dir: /gone, cache_max_size: 100t}", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg, _, err := load("c.yaml", []byte(c.text), nil, terms{disk: on})
			if err != nil {
				t.Fatal(err)
			}
			got := cfg.Warnings
			want := strings.Split(c.want, "\n")
			if c.want == "" && len(got) == 0 {
				return
			}
			if len(got) != len(want) {
				t.Fatalf("got\n%s", got)
			}
			for i := range got {
				if !strings.HasPrefix(got[i].Error(), want[i]) {
					t.Errorf("got\n%s\nwant\n%s", got[i], want[i])
				}
			}
		})
	}
	if at, err := diskOf(filepath.Join(t.TempDir(), "not", "there")); err != nil || at.size <= 0 {
		t.Errorf("%+v, %v", at, err)
	}
}

func TestPlacesOfKeys(t *testing.T) {
	t.Parallel()
	_, places, err := load("c.yaml", []byte("port: 81\nregistries:\n  a.io:\n    alias: [x]"), []string{"OCI_PROXY_ADDRESS=::1"}, terms{})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"port": "c.yaml:1:7", "address": "environment OCI_PROXY_ADDRESS", "registries.a.io": "c.yaml:3:3", "registries.a.io.alias": "c.yaml:4:12", "base_url": ""} {
		if got := places.Of("nothing", path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
