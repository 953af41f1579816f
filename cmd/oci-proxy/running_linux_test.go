package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// Commands that ask a node find the one that runs here, however it was started: nobody
// has to say its port or config again, as with docker exec.
func TestCommandsFindTheNodeThatRunsHere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args    []string // of serve; FILE and OTHER stand for the config and another port
		environ []string
		asking  []string // of the command
	}{
		"by its -c":             {args: []string{"serve", "-c", "FILE"}},
		"serve left out":        {args: []string{"-c=FILE"}},
		"a relative -c":         {args: []string{"serve", "-c", "config.yaml"}},
		"a -port":               {args: []string{"serve", "-c", "FILE", "-port", "OTHER"}},
		"a -port, and asked -c": {args: []string{"serve", "-port", "OTHER", "-c", "FILE"}, asking: []string{"-c", "FILE"}},
		"the variable":          {args: []string{"serve"}, environ: []string{"OCI_PROXY_CONFIG=FILE"}},
		"keys in its variables": {args: []string{"-c", "FILE"}, environ: []string{"OCI_PROXY_PORT=OTHER"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, addr := nodeConfig(t, upstreamtest.New(t), t.TempDir(), "auth: {username: u, password: p}")
			other := freePort(t)
			fill := strings.NewReplacer("FILE", file, "OTHER", fmt.Sprint(other))
			if strings.Contains(strings.Join(append(c.args, c.environ...), " "), "OTHER") {
				addr = fmt.Sprintf("127.0.0.1:%d", other)
			}
			exe := forAll(t) // a program of its own: other tests run nodes, too
			node := exec.Command(exe, filled(fill, c.args)...)
			node.Env = append(os.Environ(), append(filled(fill, c.environ), asProgram+"=1")...)
			node.Dir = filepath.Dir(file)
			p := startAs(t, addr, node)
			for _, command := range []string{"status", "health", "leave"} {
				ask := exec.Command(exe, append([]string{command}, filled(fill, c.asking)...)...)
				ask.Env = append(os.Environ(), asProgram+"=1")
				out, err := ask.CombinedOutput()
				if (err != nil) != (command == "leave") || command == "leave" && !strings.Contains(string(out), "409") {
					t.Errorf("%s: %v\n%s\nlog:\n%s", command, err, out, p.log.String())
				}
			}
			p.end(syscall.SIGTERM)
		})
	}
}

// filled fills in what the texts leave open.
func filled(r *strings.Replacer, texts []string) (all []string) {
	for _, s := range texts {
		all = append(all, r.Replace(s))
	}
	return all
}
