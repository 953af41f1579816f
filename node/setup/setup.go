// Package setup knows what clients need to pull through a proxy: which files, with what in
// them, and what to restart.
//
// [New] makes the [Plan] for a client. It is a value: the node shows it at /_/setup/, as JSON
// and as a shell script ([Plan.Script]). What differs between clients is in a file for each
// of them, from docker.go to buildkit.go.
//
// A plan meets a machine in [Machine.Compare]: every file has a part that setup adds, and a
// way to put it into what is there already without touching anything else (jsonmerge.go, tomlmerge.go,
// yamlmerge.go; marks.go for what a part looks like in a text). A file for which that is not safe
// is refused, with what to add by hand. [Changes] are shown as a diff, written whole or not at
// all, and undone unless others need what would go (changes.go, record.go, left.go). Read this file first.
package setup

import (
	"fmt"
	"slices"
	"strings"
)

// A Plan is what a client needs to pull through a proxy.
type Plan struct {
	Client   string   `json:"client"`
	Endpoint string   `json:"endpoint"` // the proxy's URL
	Files    []File   `json:"files"`
	Restart  string   `json:"restart"` // the command that makes the client read the files, "" if it reads them by itself
	Notes    []string `json:"notes"`   // what people should know, a sentence or two each
	Command  string   `json:"command"` // does all of it, on the client's machine

	readAtOnce bool // no restart is needed
}

// A File is one file of a plan.
type File struct {
	Path    string `json:"path"`    // absolute, on the client's machine
	Content string `json:"content"` // what it holds where there is no such file yet
	Merge   bool   `json:"merge"`   // others have a say in the file too: Content is to be merged into it
	Note    string `json:"note"`    // "" for none

	part part
}

// A part is what setup adds to a file.
type part interface {
	// into returns a text with the part in it, or the text itself if that says the same
	// already. A nil text is a file that is not there. An error says why it would not be
	// safe.
	into(text []byte) ([]byte, error)
}

// Options say what a plan is for.
type Options struct {
	Proxy      Endpoint
	Registries []string // as ParseRegistries returns them; none: all of them, or the usual ones where the client has no word for all
	CA         []byte   // certificates that the proxy's is signed by, as ParseCA returns them; nil: the system knows them
	Login      bool     // the proxy asks for a login
	NotHub     bool     // names without a registry do not mean Docker Hub at this proxy
	Machine    *Machine // where the files will be, for what can only be told there; nil for any machine
}

// usual are the registries that most images come from. They stand for all registries where
// the client has no word for that.
var usual = []string{"docker.io", "ghcr.io", "quay.io", "registry.k8s.io", "gcr.io", "mcr.microsoft.com", "public.ecr.aws", "nvcr.io"}

// A client is a program that pulls.
type client struct {
	name    string
	dir     string // where its files are
	restart string // the command that makes it read them, "" if it does by itself
	plan    func(Options) (Plan, error)
}

// clients are all that setup knows.
var clients = []client{
	{"docker", "/etc/docker", "systemctl reload docker", docker},
	{"containerd", "/etc/containerd", "systemctl restart containerd", containerd},
	{"podman", "/etc/containers", "", podman},
	{"cri-o", "/etc/containers", "systemctl reload crio", crio},
	{"k3s", "/etc/rancher/k3s", "systemctl restart k3s || systemctl restart k3s-agent", k3s},
	{"buildkit", "/etc/buildkit", "systemctl restart buildkit", buildkit},
}

// Clients returns the names of the clients that New knows.
func Clients() (names []string) {
	for _, c := range clients {
		names = append(names, c.name)
	}
	return names
}

// Restart returns the command that makes a client, one of Clients, read its files, "" if it does by
// itself.
func Restart(name string) string { return clientNamed(name).restart }

// clientNamed returns a client, the zero one for a name that is none's.
func clientNamed(name string) client {
	i := slices.IndexFunc(clients, func(c client) bool { return c.name == name })
	if i < 0 {
		return client{}
	}
	return clients[i]
}

// New returns the plan for a client, one of Clients.
func New(name string, o Options) (Plan, error) {
	c := clientNamed(name)
	if c.plan == nil {
		return Plan{}, fmt.Errorf("no such client: %q; there are %s", name, strings.Join(Clients(), ", "))
	}
	if o.CA != nil && o.Proxy.Plain() {
		return Plan{}, fmt.Errorf("a certificate authority is of no use at %s, which is plain HTTP", o.Proxy.URL())
	}
	p, err := c.plan(o)
	if err != nil {
		return Plan{}, err
	}
	p.Client, p.Endpoint, p.Command = name, o.Proxy.URL(), command(name, o)
	if !p.readAtOnce {
		p.Restart = c.restart
	}
	for i, f := range p.Files {
		text, err := f.part.into(nil)
		if err != nil {
			return Plan{}, fmt.Errorf("%s: %w", f.Path, err)
		}
		p.Files[i].Content = string(text)
	}
	if o.CA != nil {
		p.Notes = append(p.Notes, "curl needs the certificate of the proxy's authority too, as ca.crt: copy it to the machine first.")
	}
	if o.Proxy.Loopback() {
		p.Notes = append(p.Notes, fmt.Sprintf("%s is this machine's own address: it serves clients on the proxy's machine only.", o.Proxy.Host()))
	}
	return p, nil
}

// command is the line that does what the plan says. Endpoint and registries hold nothing
// that a shell reads.
func command(client string, o Options) string {
	url := o.Proxy.URL() + "/_/setup/" + client
	if len(o.Registries) > 0 {
		url += "?registries=" + strings.Join(o.Registries, ",")
	}
	if strings.ContainsAny(url, "?[]") {
		url = quote(url)
	}
	flags := "-fsS "
	if o.CA != nil {
		flags += "--cacert ca.crt "
	}
	return "curl " + flags + url + " | sh"
}

// listed returns the registries of a plan for a client that has no word for all of them.
func (o Options) listed() []string {
	if len(o.Registries) > 0 {
		return o.Registries
	}
	return slices.Clone(usual)
}

// usualNote says which registries a plan is for, if nobody has.
func (o Options) usualNote(client string) []string {
	if len(o.Registries) > 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s has no word for all registries: these are set up: %s. Name others by ?registries=a,b or -registries a,b.", client, strings.Join(usual, ", "))}
}
