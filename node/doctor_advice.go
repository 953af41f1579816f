package node

import (
	"cmp"
	"fmt"
	"strings"

	"oci-proxy/node/config"
	"oci-proxy/transfer/oci"
)

// advice is what to do about a step that failed.
func advice(what string, err error, site config.Registry) string {
	e, ok := oci.AsError(err)
	if !ok {
		return ""
	}
	host, key := e.Host, "registries."+site.Host
	if host == "" {
		host = site.Host
	}
	switch why := cmp.Or(e.Inside, e.Reason); {
	case strings.Contains(why, "proxy refused the login"), strings.Contains(why, "set insecure"), strings.Contains(why, "set ca_file"):
		return "" // the reason says it
	case e.Kind == oci.Limited:
		return "wait, and look who pulls so much; a login, further accounts or mirrors of " + key + " have limits of their own, and rate_limit_reserve keeps some of it for new tags"
	case strings.Contains(why, "metadata"):
		return "look at the DNS, and at where the registry sends clients: nothing is asked there, whatever the config says"
	case strings.Contains(why, "not configured"):
		return "if you trust it, list it under registries in the config"
	case e.Status == 0 && strings.Contains(why, "address"):
		return fmt.Sprintf("if %s is yours and is to be reached there, list its network in allow_addresses of %s", host, key)
	}
	switch what {
	case "dns":
		return fmt.Sprintf("look at the name, and at the resolver of this node (/etc/resolv.conf): getent hosts %s", bareHost(host))
	case "proxy":
		return "look whether the proxy runs, and lets this node connect to " + site.Host + "; it is named by upstream_proxy, or by HTTPS_PROXY of the node's environment"
	case "tcp":
		return fmt.Sprintf("open the way from this node to %s in firewalls and routes, or set upstream_proxy; members that reach it ask for this node meanwhile", host)
	case "tls":
		return "look at the clock of this node and at who answers there: a firewall that opens TLS needs its authority in ca_file of " + key
	case "ping":
		return pingAdvice(e, site)
	case "token":
		return fmt.Sprintf("look at auth of %s, and whether this node reaches %s; a token server on another site sees the login only if realm_hosts names it", key, host)
	case "head", "manifest":
		if e.Kind == oci.NotFound {
			return "look at the name and the tag; what is private is often told to be not there to a login that may not see it"
		}
		return "look whether auth of " + key + " may pull this repository"
	case "redirect", "storage":
		return fmt.Sprintf("open the way from this node to %s, too: the registry sends clients there for blobs", host)
	}
	return ""
}

// pingAdvice is what to do about a registry that answers, and not as one.
func pingAdvice(e *oci.Error, site config.Registry) string {
	switch {
	case e.Status >= 500:
		return "the registry itself has trouble: look at its own status page"
	case e.Status == 0:
		return "the registry takes connections and says nothing: look at it, and at what stands between"
	default:
		return "look whether " + site.Host + " is a registry, and at its path: something else answers at /v2/"
	}
}

// bareHost is a host without its port.
func bareHost(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > 0 && !strings.HasSuffix(host, "]") {
		return strings.Trim(host[:i], "[]")
	}
	return strings.Trim(host, "[]")
}
