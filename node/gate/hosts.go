package gate

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"oci-proxy/node/config"
)

// hosts are the names that browsers may reach this node by: a host, a host:port if
// the config says so, or a dot and a domain for all names below it. Names that
// nobody outside can own are known anyway, see inside.
//
// They stop DNS rebinding: a page is loaded from a name, then the name's owner
// makes it point here. To the browser the node is then of the page's own origin;
// only the name in Host gives it away. An IP address in Host is safe, whoever
// translates addresses in between: it is what the browser connected to.
type hosts map[string]bool

func newHosts(cfg *config.Config) hosts {
	h := hosts{"localhost": true}
	add := func(name string) {
		if name != "" {
			h[strings.ToLower(name)] = true
		}
	}
	if u, err := url.Parse(cfg.BaseURL); err == nil {
		add(u.Hostname())
	}
	if name, err := os.Hostname(); err == nil {
		add(name)
	}
	add(cfg.Address)
	if cfg.Cluster != nil {
		add(cfg.Cluster.Name)
		add(cfg.Cluster.Advertise)
	}
	for _, name := range cfg.AllowedHosts {
		add(name)
	}
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		if text, err := os.ReadFile("/etc/resolv.conf"); err == nil {
			for _, domain := range podDomains(string(text)) {
				add(domain)
			}
		}
	}
	return h
}

// allow reports whether the request was sent to one of the names.
func (h hosts) allow(r *http.Request) bool {
	whole := strings.ToLower(r.Host)
	name, port, err := net.SplitHostPort(whole)
	if strings.Trim(port, "0123456789") != "" {
		return false // RFC 3986 section 3.2.3: a port is digits
	}
	if err != nil {
		name = whole // without a port
		if in, ok := strings.CutPrefix(name, "["); ok && strings.HasSuffix(in, "]") {
			name = in[:len(in)-1]
		}
	}
	if a, err := netip.ParseAddr(name); err == nil {
		return a.Zone() == ""
	}
	name = strings.TrimSuffix(name, ".")
	return h[whole] || h[name] || inside(name) || h.below(name)
}

// below reports whether the name lies below one of the domains.
func (h hosts) below(name string) bool {
	if !nameLike(name) {
		return false
	}
	for i, c := range name {
		if c == '.' && h[name[i:]] {
			return true
		}
	}
	return false
}

// insideDomains are never in the public DNS: RFC 6761 (localhost), RFC 6762 (local),
// RFC 8375 (home.arpa), ICANN's resolution 2024.07.29.06 (internal), and what
// Kubernetes calls services by (svc).
var insideDomains = []string{".localhost", ".local", ".home.arpa", ".internal", ".svc"}

// inside reports whether only the own network can give a meaning to a name in lower
// case: a single label such as the name of a container or a service, or a name below
// a domain that is not in the public DNS. Nobody outside can make a page load from
// it. Who can inside reaches this node without a browser.
func inside(name string) bool {
	if !nameLike(name) {
		return false
	}
	if !strings.Contains(name, ".") {
		_, public := publicsuffix.PublicSuffix(name)
		return !public
	}
	return slices.ContainsFunc(insideDomains, func(d string) bool { return strings.HasSuffix(name, d) })
}

// nameLike reports whether a text in lower case is a host name that begins with a
// letter. A browser takes what begins with a digit for an address.
func nameLike(name string) bool {
	if name == "" || name[0] < 'a' || name[0] > 'z' || strings.Contains(name, "..") {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

// podDomains returns the domains of services, as kubelet writes them into a pod's
// resolv.conf: all services', and for NAME.NAMESPACE the namespace, unless that is
// also a domain of the public DNS.
func podDomains(resolv string) (all []string) {
	for line := range strings.Lines(resolv) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "search" {
			continue
		}
		for _, domain := range fields[1:] {
			namespace, of, ok := strings.Cut(strings.ToLower(domain), ".svc.")
			if !ok || !nameLike(of) || strings.Trim(namespace, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || namespace == "" {
				continue
			}
			all = append(all, ".svc."+of)
			if _, public := publicsuffix.PublicSuffix(namespace); !public {
				all = append(all, "."+namespace)
			}
		}
	}
	return all
}
