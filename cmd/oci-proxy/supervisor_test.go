package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"oci-proxy/transfer/upstreamtest"
)

// A manager is what a service manager hears.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &manager{t: t, path: filepath.Join(dir, "socket")}
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.conn.Close() })
	if err := m.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return m
}

// next returns the next message that is not the watchdog's; wanted is what it begins with.
func (m *manager) next(wanted string) string {
	m.t.Helper()
	buf := make([]byte, 4096)
	for {
		n, err := m.conn.Read(buf)
		if err != nil {
			m.t.Fatal(err)
		}
		if said := string(buf[:n]); !strings.HasPrefix(said, "WATCHDOG=1") || strings.HasPrefix(said, wanted) {
			if !strings.HasPrefix(said, wanted) {
				m.t.Errorf("told %q, want %q", said, wanted)
			}
			return said
		}
	}
}

// A service manager hears when the node is ready, reloads, drains, and that it lives. It may
// open the clients' port.
func TestUnderAServiceManager(t *testing.T) {
	t.Parallel()
	for name, names := range map[string]string{"no socket": "", "one socket": "oci-proxy.socket", "one of two": "other:clients"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t)
			file, addr := nodeConfig(t, upstreamtest.New(t), t.TempDir(), "cluster: {bind_addr: '127.0.0.1:0', peer_addr: '127.0.0.1:0'}")
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			// A service manager knows the process's id; a shell that becomes the process does, too.
			cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`, exe, "serve", "-c", file)
			cmd.Env = append(os.Environ(), asProgram+"=1", "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=200000")
			if names != "" {
				for range strings.SplitSeq(names, ":") { // the last one is the clients' port
					var f *os.File
					f, addr = socket(t)
					cmd.ExtraFiles = append(cmd.ExtraFiles, f)
				}
				cmd.Env = append(cmd.Env, "LISTEN_FDNAMES="+names, fmt.Sprint("LISTEN_FDS=", len(cmd.ExtraFiles)))
			}
			p := startAs(t, addr, cmd)
			if said := m.next("READY=1"); !strings.Contains(said, "STATUS=serving on "+addr) {
				t.Errorf("%q", said)
			}
			m.next("WATCHDOG=1")
			if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if said := m.next("RELOADING=1"); !strings.Contains(said, "MONOTONIC_USEC=") {
				t.Errorf("%q", said)
			}
			m.next("READY=1")
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if said := m.next("STOPPING=1"); !strings.Contains(said, "STATUS=draining") {
				t.Errorf("%q", said)
			}
			<-p.done
		})
	}
}

// socket opens a port as a service manager does.
func socket(t *testing.T) (f *os.File, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if f, err = l.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, l.Addr().String()
}

// Sockets that are not the clients' port are refused with what to do.
func TestSocketsThatAreNoClientsPort(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	file, err := unix.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	one, _ := socket(t)
	two, _ := socket(t)
	for names, c := range map[string]struct {
		files []*os.File
		says  string
	}{
		"a:b":     {[]*os.File{one, two}, "passes the sockets a, b, and none is named clients: set FileDescriptorName=clients"},
		"clients": {[]*os.File{file}, "the socket clients of the service manager is no TCP port"},
	} {
		cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, exe, "serve", "-c", configFile(t, "defaults: {cache_dir: %q}", t.TempDir()))
		cmd.ExtraFiles = c.files
		cmd.Env = append(os.Environ(), asProgram+"=1", "LISTEN_FDNAMES="+names, fmt.Sprint("LISTEN_FDS=", len(c.files)))
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), c.says) {
			t.Errorf("%s: %v: %s", names, err, out)
		}
	}
}

// The units that this project ships are whole, as systemd itself says.
func TestUnits(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd is not installed here")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var units []string
	for _, name := range []string{"oci-proxy.service", "oci-proxy.socket"} {
		text := read(t, filepath.Join("../../deploy", name))
		text = strings.ReplaceAll(text, "/usr/local/bin/oci-proxy", exe)
		units = append(units, filepath.Join(dir, name))
		if err := os.WriteFile(units[len(units)-1], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no", "--recursive-errors=no"}, units...)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), dir) {
		t.Errorf("%v: %s", err, out)
	}
}
