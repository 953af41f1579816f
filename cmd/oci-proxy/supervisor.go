package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"oci-proxy/node"
)

// A supervisor is the service manager that started this program, if it wants to hear of it
// (sd_notify(3)): systemd, or another that speaks its protocol.
type supervisor struct {
	said  chan string   // on its way to it, in order; nil: there is none
	over  chan struct{} // closed when nothing more will be said
	ended chan struct{} // closed when all that was said is sent
	log   *slog.Logger
}

// newSupervisor returns the service manager. It is told until end is called.
func newSupervisor(log *slog.Logger) supervisor {
	s := supervisor{over: make(chan struct{}), ended: make(chan struct{}), log: log}
	if os.Getenv("NOTIFY_SOCKET") == "" {
		close(s.ended)
		return s
	}
	s.said = make(chan string, 16)
	go s.send()
	return s
}

// lastWords bounds how long the end of the program waits for a service manager that does not
// read.
const lastWords = time.Second

// end waits until the service manager has been told all.
func (s supervisor) end() {
	close(s.over)
	select {
	case <-s.ended:
	case <-time.After(lastWords):
	}
}

// send sends what is said. A service manager that does not read delays nobody else.
func (s supervisor) send() {
	defer close(s.ended)
	for {
		select {
		case text := <-s.said:
			s.notify(text)
		case <-s.over:
			for len(s.said) > 0 { // nobody else takes any
				s.notify(<-s.said)
			}
			return
		}
	}
}

// notify sends one message.
func (s supervisor) notify(text string) {
	if _, err := daemon.SdNotify(false, text); err != nil {
		s.log.Warn("service manager not told", "error", err)
	}
}

// tell tells it lines of NAME=value. They are lost if it has not read those before.
func (s supervisor) tell(lines ...string) {
	select {
	case s.said <- strings.Join(lines, "\n"):
	default:
	}
}

// stage tells it what a node at addr has come to.
func (s supervisor) stage(addr string, stage node.Stage) {
	switch stage {
	case node.Ready:
		s.tell(daemon.SdNotifyReady, "STATUS=serving on "+addr)
	case node.Draining:
		s.tell(daemon.SdNotifyStopping, "STATUS=draining: pulls under way may end")
	}
}

// reload tells it that reload is under way while that runs.
func (s supervisor) reload(reload func()) {
	s.tell(daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec())
	reload()
	s.tell(daemon.SdNotifyReady)
}

// guard tells it that the program lives, as often as it wants (WatchdogSec=), until ctx ends:
// each time once pulse has returned.
func (s supervisor) guard(ctx context.Context, pulse func()) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("watchdog not served", "error", err)
	}
	if err != nil || every == 0 {
		return
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		pulse()
		s.tell(daemon.SdNotifyWatchdog)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// clientsSocket is the name of the clients' port among the sockets that a service manager passes
// (FileDescriptorName=). A single one needs no name.
const clientsSocket = "clients"

// passed returns the clients' port that the service manager has opened (sd_listen_fds(3)), nil
// if it has opened none.
func passed() (net.Listener, error) {
	files := activation.Files(true)
	if len(files) == 0 {
		return nil, nil
	}
	named := map[string]*os.File{}
	for _, f := range files {
		named[f.Name()] = f
		defer f.Close()
	}
	f := named[clientsSocket]
	if f == nil && len(files) == 1 {
		f = files[0]
	}
	if f == nil {
		return nil, fmt.Errorf("the service manager passes the sockets %s, and none is named %s: set FileDescriptorName=%s for that of the clients' port", strings.Join(slices.Sorted(maps.Keys(named)), ", "), clientsSocket, clientsSocket)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("taking the socket %s of the service manager: %w", f.Name(), err)
	}
	if _, ok := l.Addr().(*net.TCPAddr); !ok {
		return nil, errors.Join(fmt.Errorf("the socket %s of the service manager is no TCP port: set ListenStream= to one", f.Name()), l.Close())
	}
	return l, nil
}
