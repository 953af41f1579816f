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
	// ::1, fc00::/7, fe80::/10 and ff00::/8 lie outside it, and so does nat64.
	global = netip.MustParsePrefix("2000::/3")
	// nat64 stands for public IPv4 addresses alone (RFC 6052, 3.1).
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
	// private: the IPv4 addresses of machines that no public one can be mistaken for.
	private = prefixes(`10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
		192.0.2.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24`)
	// ownOnly: addresses that mean this machine, its links, or no machine.
	ownOnly = prefixes(`0.0.0.0/8 127.0.0.0/8 169.254.0.0/16 224.0.0.0/4 240.0.0.0/4
		::/128 ::1/128 fe80::/10 ff00::/8`)
	// fakeIP: what the DNS of local proxies (clash and others) gives every name.
	fakeIP = prefixes(`198.18.0.0/15 fc00::/18`)
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

// public reports whether ip is a public unicast address, and wraps none that is not.
func public(ip netip.Addr) bool {
	ip = plainAddr(ip)
	if nat64.Contains(ip) {
		return public(netip.AddrFrom4([4]byte(bytesOf(ip, 12, 13, 14, 15))))
	}
	if !ip.IsValid() || ip.Is6() && !global.Contains(ip) || within(ip, notPublic) {
		return false
	}
	return !wraps(ip, private)
}

// isMetadata reports whether ip, or an IPv4 address that it may wrap, belongs to a
// cloud's metadata service. Any IPv6 address that ends in such an IPv4 address counts.
func isMetadata(ip netip.Addr) bool {
	ip = plainAddr(ip)
	if within(ip, metadata) || !ip.Is6() {
		return within(ip, metadata)
	}
	sixToFour, end := bytesOf(ip, 2, 3, 4, 5), bytesOf(ip, 12, 13, 14, 15)
	teredo := bytesOf(ip, 12, 13, 14, 15) // it inverts the bits (RFC 4380)
	for i := range teredo {
		teredo[i] ^= 0xff
	}
	for _, wrapped := range [][]byte{end, sixToFour, teredo} {
		if within(netip.AddrFrom4([4]byte(wrapped)), metadata) {
			return true
		}
	}
	return wraps(ip, metadata)
}

// bytesOf returns bytes of an IPv6 address.
func bytesOf(ip netip.Addr, places ...int) []byte {
	b, out := ip.As16(), make([]byte, len(places))
	for i, p := range places {
		out[i] = b[p]
	}
	return out
}

// wraps reports whether ip may stand for an IPv4 address in one of the ranges. Each
// network chooses its own prefix for NAT64, of one of six lengths (RFC 6052, 2.2), and
// nothing tells a node which one; so each place counts where a wrapped address may be.
// Few addresses look like that by chance: byte 8 has to be 0, and where a subnet's
// number may look like an address, the rest has to fit too. ISATAP (RFC 5214) marks
// what it wraps.
func wraps(ip netip.Addr, ranges []netip.Prefix) bool {
	if !ip.Is6() {
		return false
	}
	in := func(places ...int) bool {
		return within(netip.AddrFrom4([4]byte(bytesOf(ip, places...))), ranges)
	}
	b := ip.As16()
	if mark := [4]byte(b[8:12]); mark == [4]byte{0, 0, 0x5e, 0xfe} || mark == [4]byte{2, 0, 0x5e, 0xfe} {
		return in(12, 13, 14, 15)
	}
	if b[8] != 0 {
		return false
	}
	return in(12, 13, 14, 15) || in(9, 10, 11, 12) || // /96, /64
		b[11] != 0 && in(7, 9, 10, 11) || b[10] != 0 && in(6, 7, 9, 10) || b[9] != 0 && in(5, 6, 7, 9) || // /56, /48, /40
		[8]byte(b[8:]) == [8]byte{} && in(4, 5, 6, 7) // /32
}

// letsIn reports whether a network that an operator allows lets in ip, which lies in
// it. A broad one, such as 0.0.0.0/0, means hosts of a network: what only this machine
// or its link reaches has to be named by a network within.
func letsIn(p netip.Prefix, ip netip.Addr) bool {
	for _, own := range ownOnly {
		if own.Contains(ip) && (p.Bits() < own.Bits() || !own.Contains(p.Addr())) {
			return false
		}
	}
	return true
}
