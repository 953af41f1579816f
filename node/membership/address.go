package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// An endpoint says where this node listens, and at which addresses the others
// reach it.
type endpoint struct {
	bind      netip.AddrPort // unspecified: all interfaces; port 0: a free one
	advertise netip.Addr
	peer      string // host:port of the peer listener
	gossip    string // host:port of gossip, known once it listens
	simulated bool   // the network is a test's
}

// place finds the endpoint of the config.
func place(cfg *Config) (endpoint, error) {
	e := endpoint{simulated: cfg.Transport != nil}
	host, port, err := splitAddress(cfg.BindAddr)
	if err != nil {
		return e, fmt.Errorf("the gossip address %q is not host:port: %w", cfg.BindAddr, err)
	}
	bind := netip.IPv4Unspecified()
	if host != "" {
		if bind, err = cfg.lookup(host); err != nil {
			return e, fmt.Errorf("the gossip address %q: %w", cfg.BindAddr, err)
		}
	}
	e.bind = netip.AddrPortFrom(bind, port)
	if e.advertise, err = advertised(cfg, bind); err != nil {
		return e, fmt.Errorf("the advertised address: %w", err)
	}
	host, port, err = splitAddress(cfg.PeerAddr)
	if err != nil || port == 0 {
		return e, fmt.Errorf("the peer address %q is not host:port", cfg.PeerAddr)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = e.advertise.String()
	}
	e.peer = net.JoinHostPort(host, strconv.Itoa(int(port)))
	return e, nil
}

// guarded returns an error if strangers could join: without a secret, anybody who
// reaches the port is a member.
func (e endpoint) guarded(secrets []string) error {
	if len(secrets) == 0 && !(e.bind.Addr().IsLoopback() && e.advertise.IsLoopback()) {
		return fmt.Errorf("%w: none is set, which is allowed on loopback only, not on %s", errSecret, e.bind)
	}
	return nil
}

func splitAddress(address string) (host string, port uint16, err error) {
	host, digits, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("the port of %q: %w", address, err)
	}
	return host, uint16(n), nil
}

// advertised returns the address at which others reach this node.
func advertised(cfg *Config, bind netip.Addr) (netip.Addr, error) {
	switch {
	case cfg.Advertise != "":
		a, err := cfg.lookup(cfg.Advertise)
		if err == nil && a.IsUnspecified() {
			err = fmt.Errorf("%s stands for all addresses; name one", a)
		}
		return a, err
	case !bind.IsUnspecified():
		return bind, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("listing this host's addresses: %w", err)
	}
	return firstPrivate(interfaceIPs(addrs))
}

// firstPrivate returns the first private IPv4 address, as the others most likely
// have one too, or else the first private address.
func firstPrivate(ips []netip.Addr) (netip.Addr, error) {
	for _, want := range []func(netip.Addr) bool{
		func(a netip.Addr) bool { return a.Is4() && a.IsPrivate() },
		netip.Addr.IsPrivate,
	} {
		if i := slices.IndexFunc(ips, want); i >= 0 {
			return ips[i], nil
		}
	}
	return netip.Addr{}, errors.New("this host has no private address; say which one to advertise")
}

func interfaceIPs(addrs []net.Addr) (ips []netip.Addr) {
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			ips = append(ips, p.Addr().Unmap())
		}
	}
	return ips
}

// lookup returns one address of the host, an IPv4 one if there is any.
func (c *Config) lookup(host string) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	all, err := c.lookupAll(ctx, host)
	if err != nil {
		return netip.Addr{}, err
	}
	if i := slices.IndexFunc(all, netip.Addr.Is4); i >= 0 {
		return all[i], nil
	}
	return all[0], nil
}

// lookupAll returns all addresses of the host, at least one.
func (c *Config) lookupAll(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	all, err := c.Resolve(ctx, host)
	if err == nil && len(all) == 0 {
		err = errors.New("it has no address")
	}
	if err != nil {
		return nil, fmt.Errorf("resolving %q: %w", host, err)
	}
	for i, a := range all {
		all[i] = a.Unmap()
	}
	return all, nil
}

// own reports whether the address is this node's own. A seed's name often stands
// for this node too.
func (e endpoint) own(a netip.AddrPort) bool {
	if a.String() == e.gossip {
		return true
	}
	bind := e.bind.Addr()
	if _, port, err := splitAddress(e.gossip); err != nil || a.Port() != port || e.simulated {
		return false
	}
	if !bind.IsUnspecified() {
		return a.Addr() == bind
	}
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.Contains(interfaceIPs(addrs), a.Addr())
}
