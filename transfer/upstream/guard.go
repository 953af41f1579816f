package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
)

// A refusal is the guard's no. It is final.
type refusal struct{ reason string }

func (e *refusal) Error() string { return e.reason }

// prefixes parses address ranges that are written in this file.
func prefixes(s string) (list []netip.Prefix) {
	for f := range strings.FieldsSeq(s) {
		list = append(list, netip.MustParsePrefix(f))
	}
	return list
}

var (
	// notPublic: what the IANA special-purpose registries list as not globally
	// reachable unicast, and IPv6 ranges that wrap an IPv4 address.
	notPublic = prefixes(`0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12
		192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24
		203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
		2001::/23 2001:db8::/32 2002::/16 3fff::/20`)
	// global is the only part of IPv6 that is handed out for unicast so far, so
	// all of ::1, fc00::/7, fe80::/10, ff00::/8, 64:ff9b::/96 lie outside it.
	global = netip.MustParsePrefix("2000::/3")
	// inside: addresses where a private network's machines are, to which a
	// registry that is itself there may lead.
	inside = prefixes(`10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12
		192.168.0.0/16 198.18.0.0/15 ::1/128 fc00::/7 fe80::/10`)
	// metadata: where clouds hand credentials to whoever asks. AWS and most
	// others; its containers (ECS, EKS); Alibaba; Azure; Oracle; Tencent;
	// Scaleway; AWS and Google by IPv6.
	metadata = prefixes(`169.254.169.254/32 169.254.170.2/32 169.254.170.23/32 100.100.100.200/32
		168.63.129.16/32 192.0.0.192/32 169.254.0.23/32 169.254.42.42/32
		fd00:ec2::254/128 fd00:ec2::23/128 fd20:ce::254/128`)
	// metadataNames are the same by name, for where a proxy looks names up.
	metadataNames = []string{"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)

// within reports whether ip is in one of the ranges.
func within(ip netip.Addr, ranges []netip.Prefix) bool {
	for _, p := range ranges {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// plainAddr returns ip without zone, and as IPv4 if that is what it means.
func plainAddr(ip netip.Addr) netip.Addr { return ip.WithZone("").Unmap() }

// public reports whether ip is a public unicast address.
func public(ip netip.Addr) bool {
	ip = plainAddr(ip)
	if ip.Is6() && !global.Contains(ip) {
		return false
	}
	return ip.IsValid() && !within(ip, notPublic)
}

// isMetadata reports whether ip, or an IPv4 address that it may wrap, is a
// cloud's metadata service. Which prefixes wrap one is each network's choice
// (NAT64, RFC 6052), so that any IPv6 address that ends in one counts.
func isMetadata(ip netip.Addr) bool {
	ip = plainAddr(ip)
	if within(ip, metadata) || !ip.Is6() {
		return within(ip, metadata)
	}
	b := ip.As16()
	end, sixToFour := [4]byte(b[12:16]), [4]byte(b[2:6])
	teredo := end // hides it in the bits' reverse (RFC 4380)
	for i := range teredo {
		teredo[i] ^= 0xff
	}
	for _, wrapped := range [][4]byte{end, sixToFour, teredo} {
		if within(netip.AddrFrom4(wrapped), metadata) {
			return true
		}
	}
	return false
}

// isInside reports whether the registry itself lives on the inside, and so may
// lead there. One that was ever seen at a public address does not: whoever
// answers for its name there could have it lead inside the next moment.
func (r *registry) isInside() bool { return r.private.Load() && !r.outside.Load() }

// seen notes an address of the registry's own.
func (r *registry) seen(ip netip.Addr) {
	if public(ip) {
		r.outside.Store(true)
	} else {
		r.private.Store(true)
	}
}

// admits says whether ip may be dialled where own says whether it is for the
// registry's own host:port. It remembers where the registry itself lives.
func (r *registry) admits(ip netip.Addr, own bool) error {
	switch {
	case isMetadata(ip):
		return &refusal{"metadata addresses are never asked"}
	case own && r.Configured:
		r.seen(ip)
		return nil
	case public(ip):
		return nil
	case r.Configured && r.isInside() && within(plainAddr(ip), inside):
		return nil
	}
	return &refusal{"the address is not a public one"}
}

// guard returns a dialer's ControlContext for addr, a host:port. It is called
// after the name was resolved, for each address tried, so that no answer of the
// DNS gets past it.
func (r *registry) guard(addr string) func(context.Context, string, string, syscall.RawConn) error {
	own := r.isOwnAddress(addr)
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return &refusal{"the address can't be read"}
		}
		if to.Port() != 443 && !r.Configured {
			return &refusal{"a registry that is not configured is asked on port 443 only"}
		}
		return r.admits(to.Addr(), own)
	}
}

// permits says whether this registry may lead to u at all, before anything is
// looked up. Where a proxy resolves names (proxied), it is all there is.
func (r *registry) permits(u *url.URL, proxied bool) error {
	host := strings.ToLower(u.Hostname())
	ip, ipErr := netip.ParseAddr(host)
	own := r.isOwn(u) && (u.Scheme == "https" || r.Insecure)
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return &refusal{"only http and https are followed"}
	case u.Scheme == "http" && !r.Insecure:
		return &refusal{"from https to plain http is not followed"}
	case slices.Contains(metadataNames, strings.TrimSuffix(host, ".")):
		return &refusal{"metadata addresses are never asked"}
	case !r.Configured:
		return strangerHost(strings.ToLower(u.Host))
	case ipErr != nil && hexAddress(host):
		return &refusal{"an address is not the name of a registry"}
	case ipErr == nil && isMetadata(ip):
		return r.admits(ip, own)
	case own:
		return nil
	case ipErr == nil:
		return r.admits(ip, false)
	case proxied && internalName(host) && !internalName(r.name) && !r.isInside():
		return &refusal{"a public registry does not lead to an internal name"}
	}
	return hostName(host)
}

// internalSuffixes are names that mean something only inside some network: what
// is set aside for that, and what nobody can register because so many use it so.
var internalSuffixes = []string{
	".local", ".internal", ".localhost", ".svc", ".cluster.local", ".home.arpa", ".onion", ".invalid", ".test",
	".localdomain", ".lan", ".home", ".corp", ".intranet", ".private",
}

// internalName reports whether host means something only inside a network.
func internalName(host string) bool {
	if host == "localhost" || !strings.Contains(host, ".") {
		return true
	}
	for _, s := range internalSuffixes {
		if strings.HasSuffix(host, s) {
			return true
		}
	}
	return false
}

// strangerHost says what keeps host, as a client names it, from being asked
// though nobody configured it.
func strangerHost(host string) error {
	name := strings.TrimSuffix(host, ":443")
	if strings.Contains(name, ":") {
		return &refusal{"a registry that is not configured is asked on port 443 only, by its name"}
	}
	if err := hostName(name); err != nil {
		return err
	}
	if internalName(name) {
		return &refusal{"a registry that is not configured must have a public name"}
	}
	return nil
}

// hostName checks that name is one (RFC 1123), and no spelling of an address:
// resolvers take "127.1" and "0x7f.0.0.1" for addresses.
func hostName(name string) error {
	if len(name) == 0 || len(name) > 253 {
		return &refusal{"the host's name is empty or too long"}
	}
	for label := range strings.SplitSeq(name, ".") {
		if err := hostLabel(label); err != nil {
			return &refusal{fmt.Sprintf("the host's name is not valid: %v", err)}
		}
	}
	if last := lastLabel(name); strings.Trim(last, "0123456789") == "" || hexAddress(name) {
		return &refusal{"an address is not the name of a registry"}
	}
	return nil
}

func lastLabel(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// hexAddress reports whether name ends as only an address does that is spelled
// in hexadecimal. Some resolvers take it for one.
func hexAddress(name string) bool { return strings.HasPrefix(lastLabel(name), "0x") }

// hostLabel checks one label of a name. Underscores occur in the names of buckets.
func hostLabel(label string) error {
	switch {
	case label == "":
		return errors.New("a label is empty")
	case len(label) > 63:
		return errors.New("a label is longer than 63 characters")
	case label[0] == '-' || label[len(label)-1] == '-':
		return errors.New("a label begins or ends with a hyphen")
	}
	for _, b := range []byte(label) {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '-' && b != '_' {
			return errors.New("a label holds other characters than a-z, 0-9 and hyphens")
		}
	}
	return nil
}
