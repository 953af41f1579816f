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
		return lookAtPort(ctx, clients, []string{"tcp"}, running)
	}}}
	if cfg.Cluster == nil {
		return all
	}
	add := func(key, addr string, networks ...string) {
		all = append(all, inspection{[]string{key, "cluster"}, func(ctx context.Context) Finding {
			return lookAtPort(ctx, addr, networks, running)
		}})
	}
	add("cluster.bind_addr", cfg.Cluster.BindAddr, "tcp", "udp")
	add("cluster.peer_addr", cfg.Cluster.PeerAddr, "tcp")
	return all
}

// lookAtPort opens and closes a port. running reports whether a node of ours has it.
func lookAtPort(ctx context.Context, addr string, networks []string, running func(context.Context) bool) Finding {
	for _, network := range networks {
		err := tryPort(ctx, network, addr)
		switch {
		case err == nil:
		case errors.Is(err, syscall.EADDRINUSE) && running(ctx):
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
func tryPort(ctx context.Context, network, addr string) error {
	var listen net.ListenConfig
	if network == "udp" {
		c, err := listen.ListenPacket(ctx, network, addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := listen.Listen(ctx, network, addr)
	if err != nil {
		return err
	}
	return l.Close()
}
