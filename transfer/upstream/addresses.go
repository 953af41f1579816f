package upstream

import (
	"net/netip"
	"strings"
)

// prefixes parses the address ranges in this file.
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
	// global is the only part of IPv6 that has been assigned for unicast so far.
	// ::1, fc00::/7, fe80::/10, ff00::/8 and 64:ff9b::/96 lie outside it.
	global = netip.MustParsePrefix("2000::/3")
	// inside: the addresses of machines on private networks. A registry on such a
	// network may lead to them.
	inside = prefixes(`10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12
		192.168.0.0/16 198.18.0.0/15 ::1/128 fc00::/7 fe80::/10`)
	// metadata: where clouds give credentials to anybody who asks. In order: AWS
	// and most others; AWS containers (ECS, EKS); Alibaba; Azure; Oracle; Tencent;
	// Scaleway; AWS and Google over IPv6.
	metadata = prefixes(`169.254.169.254/32 169.254.170.2/32 169.254.170.23/32 100.100.100.200/32
		168.63.129.16/32 192.0.0.192/32 169.254.0.23/32 169.254.42.42/32
		fd00:ec2::254/128 fd00:ec2::23/128 fd20:ce::254/128`)
	// metadataNames are the names of such services. They matter where a proxy
	// resolves names.
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

// plainAddr returns ip without its zone, and as IPv4 if it is a mapped one.
func plainAddr(ip netip.Addr) netip.Addr { return ip.WithZone("").Unmap() }

// public reports whether ip is a public unicast address.
func public(ip netip.Addr) bool {
	ip = plainAddr(ip)
	if ip.Is6() && !global.Contains(ip) {
		return false
	}
	return ip.IsValid() && !within(ip, notPublic)
}

// isMetadata reports whether ip, or an IPv4 address that it may wrap, belongs to a
// cloud's metadata service. Each network chooses its own prefix for wrapped
// addresses (NAT64, RFC 6052), so any IPv6 address that ends in such an IPv4
// address counts.
func isMetadata(ip netip.Addr) bool {
	ip = plainAddr(ip)
	if within(ip, metadata) || !ip.Is6() {
		return within(ip, metadata)
	}
	b := ip.As16()
	end, sixToFour := [4]byte(b[12:16]), [4]byte(b[2:6])
	teredo := end // Teredo inverts the bits (RFC 4380)
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
