package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"oci-proxy/node/config"
)

// seedTries bounds the addresses of one seed that are tried.
const seedTries = 16

// seedTime is how long an address of a seed may take to answer.
const seedTime = 5 * time.Second

// seedInspections look whether somebody listens at each seed. Whether it is a member
// with the same secret shows when the node runs: only members can ask.
func seedInspections(cfg *config.Config) (all []inspection) {
	if cfg.Cluster == nil {
		return nil
	}
	_, own, _ := net.SplitHostPort(cfg.Cluster.BindAddr) // the config is checked
	for i, seed := range cfg.Cluster.Seeds {
		keys := []string{fmt.Sprintf("cluster.seeds[%d]", i), "cluster.seeds"}
		all = append(all, inspection{keys, func(ctx context.Context) Finding { return lookAtSeed(ctx, seed, own) }})
	}
	return all
}

// lookAtSeed looks whether a seed, host:port, answers. own is this node's gossip port.
func lookAtSeed(ctx context.Context, seed, own string) Finding {
	host, port, err := net.SplitHostPort(seed)
	if err != nil {
		return wrong("%s: %s", seed, err)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return wrong("%s: its name can't be looked up: %s", seed, reasonOf(err))
	}
	ips = slices.DeleteFunc(ips, func(ip netip.Addr) bool { return port == own && ownAddress(ip) })
	if len(ips) == 0 {
		return fine("%s is this node itself", seed)
	}
	ips = ips[:min(len(ips), seedTries)]
	errs := make([]error, len(ips))
	var dials sync.WaitGroup
	for i, ip := range ips {
		dials.Go(func() { errs[i] = tryDial(ctx, net.JoinHostPort(ip.Unmap().String(), port)) })
	}
	dials.Wait()
	var silent []string
	for i, err := range errs {
		if err != nil {
			silent = append(silent, ips[i].Unmap().String()+": "+reasonOf(err))
		}
	}
	switch len(silent) {
	case 0:
		return fine("%s answers, at %s", seed, counted(len(ips)))
	case len(ips):
		return wrong("%s does not answer: %s", seed, strings.Join(silent, "; "))
	default:
		return doubtful("%s answers, but not at %d of %s: %s", seed, len(silent), counted(len(ips)), strings.Join(silent, "; "))
	}
}

// counted writes a number of addresses.
func counted(n int) string {
	if n == 1 {
		return "1 address"
	}
	return strconv.Itoa(n) + " addresses"
}

// tryDial opens a connection and closes it.
func tryDial(ctx context.Context, addr string) error {
	c, err := (&net.Dialer{Timeout: seedTime}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// ownAddress reports whether the address is one of this machine's.
func ownAddress(ip netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addrs, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == ip.Unmap().WithZone("")
	})
}

// reasonOf says in plain words why there is no connection.
func reasonOf(err error) string {
	dns, isDNS := errors.AsType[*net.DNSError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case isDNS && dns.IsNotFound:
		return "no such host"
	case errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		return "no answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: nothing listens there"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no route to it"
	case isDNS:
		return "the resolver fails"
	}
	return err.Error()
}
