package node

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"oci-proxy/node/config"
)

// hosts are the names that browsers may reach this node by, as host or, where
// the config says so, host:port.
//
// A page whose name its owner lets point here, after the browser loaded it from
// elsewhere (DNS rebinding), is of this node's origin to the browser; only the
// name in Host tells. An IP address in Host is what the browser did connect to,
// so that it can't be such a name, whoever translates addresses in between.
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
		return false // no port of RFC 3986, section 3.2.3
	}
	if err != nil {
		name = whole // it has no port
		if in, ok := strings.CutPrefix(name, "["); ok && strings.HasSuffix(in, "]") {
			name = in[:len(in)-1]
		}
	}
	if a, err := netip.ParseAddr(name); err == nil {
		return a.Zone() == ""
	}
	return h[whole] || h[strings.TrimSuffix(name, ".")]
}

// misdirected answers who calls this node by another name.
func misdirected(w http.ResponseWriter) {
	writeError(w, http.StatusMisdirectedRequest, ociError{
		Code: "DENIED", Message: "this node is not known by the name in Host: add it to allowed_hosts, or set base_url",
	})
}
