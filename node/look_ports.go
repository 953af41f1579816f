package node

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"strconv"
	"syscall"

	"oci-proxy/node/config"
)

// portInspections look whether the node's ports are free.
func portInspections(cfg *config.Config, running func(context.Context) bool) []inspection {
	clients := net.JoinHostPort(cfg.Address, strconv.Itoa(cfg.Port))
	all := []inspection{{[]string{"port", "address"}, func(ctx context.Context) Finding {
		return lookAtPort(clients, []string{"tcp"}, func() bool { return running(ctx) })
	}}}
	if cfg.Cluster == nil {
		return all
	}
	add := func(key, addr string, networks ...string) {
		all = append(all, inspection{[]string{key, "cluster"}, func(ctx context.Context) Finding {
			return lookAtPort(addr, networks, func() bool { return running(ctx) })
		}})
	}
	add("cluster.bind_addr", cfg.Cluster.BindAddr, "tcp", "udp")
	add("cluster.peer_addr", cfg.Cluster.PeerAddr, "tcp")
	return all
}

// lookAtPort opens and closes a port. held reports whether a node of ours has it.
func lookAtPort(addr string, networks []string, held func() bool) Finding {
	for _, network := range networks {
		err := tryPort(network, addr)
		switch {
		case err == nil:
		case errors.Is(err, syscall.EADDRINUSE) && held():
			return fine("%s is in use by the node that runs here", addr)
		case errors.Is(err, syscall.EADDRINUSE):
			return wrong("%s (%s) is in use by another program; stop it or choose another port", addr, network)
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			return wrong("%s is no address of this machine", addr)
		case errors.Is(err, fs.ErrPermission):
			return wrong("%s: a port below 1024 needs privileges; choose another one, or grant CAP_NET_BIND_SERVICE", addr)
		default:
			return wrong("%s", err)
		}
	}
	return fine("%s is free", addr)
}

// tryPort opens a port and closes it.
func tryPort(network, addr string) error {
	if network == "udp" {
		c, err := net.ListenPacket(network, addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	return l.Close()
}
