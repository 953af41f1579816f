package gate

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"oci-proxy/node/config"
	"oci-proxy/node/reply"
)

// hosts are the names that browsers may reach this node by: a host, or a
// host:port if the config says so.
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
	return h[whole] || h[strings.TrimSuffix(name, ".")]
}

// refuseHost answers a client that calls this node by an unknown name.
func refuseHost(w http.ResponseWriter) {
	reply.Fail(w, http.StatusMisdirectedRequest, reply.Error{
		Code: "DENIED", Message: "this node does not answer to the name in the Host header: add the name to allowed_hosts, or set base_url",
	})
}
