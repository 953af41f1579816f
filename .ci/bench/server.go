package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Server is a process on the first processor, or the registry itself, which has none.
type Server struct {
	Addr       string  // host:port
	idle, last float64 // memory in bytes

	cmd   *exec.Cmd
	pprof string          // host:port, "" for none
	holds map[string]bool // paths that it has answered
}

// A kind is how a server is started.
type kind struct {
	config  string // a template: $FOLDER, $PORT, $REGISTRY, $USER
	file    string // its name
	command func(program, file string) []string
	pprof   bool // it takes -pprof
}

// nginxConfig is nginx's, for both of its kinds.
const nginxConfig = `$USER
worker_processes 1; daemon off; pid $FOLDER/pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off; sendfile on; tcp_nopush off; keepalive_requests 1000000000; keepalive_timeout 600; default_type application/octet-stream;
  client_body_temp_path $FOLDER/t1; proxy_temp_path $FOLDER/t2; fastcgi_temp_path $FOLDER/t3; uwsgi_temp_path $FOLDER/t4; scgi_temp_path $FOLDER/t5;
  $HTTP
}
`

// nginxCache is nginx in front of the registry.
const nginxCache = `
  proxy_cache_path $FOLDER/cache levels=1:2 keys_zone=c:64m max_size=$BOUND inactive=1d use_temp_path=off;
  upstream registry { server $REGISTRY; keepalive 64; }
  server { listen $ADDRESS; location / {
    proxy_pass http://registry; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_cache c; proxy_cache_valid 200 1d; proxy_cache_lock on;
  } }`

const nodeConfig = `port: $PORT
address: 127.0.0.1
log_level: error
default_registry: "$REGISTRY"
defaults: {cache_dir: $FOLDER/cache, cache_max_size: $BOUND}
registries:
  "$REGISTRY": {insecure: true}
`

func nginx(http string) kind {
	return kind{strings.Replace(nginxConfig, "$HTTP", http, 1), "nginx.conf", func(_, file string) []string {
		return []string{"nginx", "-p", filepath.Dir(file), "-c", file}
	}, false}
}

func node(bound string) kind {
	return kind{strings.Replace(nodeConfig, "$BOUND", bound, 1), "config.yaml", func(program, file string) []string {
		return []string{program, "serve", "-c", file}
	}, true}
}

// kinds are the servers that rows can name.
var kinds = map[string]kind{
	"nginx":              nginx("server { listen $ADDRESS; root $ROOT; }"),
	"nginx cache":        nginx(strings.Replace(nginxCache, "$BOUND", "8g", 1)),
	"nginx cache, 40 MB": nginx(strings.Replace(nginxCache, "$BOUND", "40m", 1)),
	"node":               node("8g"),
	"node, 40 MB":        node("40m"),
}

// startServer starts a server, and waits until it listens. It ends with ctx.
func startServer(ctx context.Context, b *Bench, name string) (*Server, error) {
	if name == "registry" {
		return &Server{Addr: b.registry.Addr}, nil
	}
	k, ok := kinds[name]
	if !ok {
		return nil, fmt.Errorf("there is no server %q", name)
	}
	addr, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(b.Folder, strings.NewReplacer(" ", "-", ",", "").Replace(name))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // else nginx gives up the right to read the folder
	}
	_, port, _ := strings.Cut(addr, ":")
	file := filepath.Join(folder, k.file)
	config := strings.NewReplacer("$FOLDER", folder, "$PORT", port, "$ADDRESS", addr, "$REGISTRY", b.registry.Addr, "$USER", user, "$ROOT", b.root()).Replace(k.config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("writing a config: %w", err)
	}
	out, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		return nil, fmt.Errorf("making a log: %w", err)
	}
	defer out.Close()
	args := append([]string{"-c", "0"}, k.command(b.Program, file)...)
	s := &Server{Addr: addr, holds: map[string]bool{}}
	if k.pprof && b.Profile != "" {
		if s.pprof, err = freeAddress(ctx); err != nil {
			return nil, err
		}
		args = append(args, "-pprof", s.pprof)
	}
	cmd := exec.CommandContext(ctx, "taskset", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	s.cmd = cmd
	if err := s.ready(ctx); err != nil {
		log, _ := os.ReadFile(out.Name())
		s.stop()
		return nil, fmt.Errorf("%s does not listen: %w: %s", name, err, log)
	}
	s.idle = s.memory()
	return s, nil
}

// freeAddress returns a port that is free on 127.0.0.1.
func freeAddress(ctx context.Context) (string, error) {
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// ready waits until the server listens, and a moment more for what it does at its start.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		var dial net.Dialer
		c, err := dial.DialContext(ctx, "tcp", s.Addr)
		if err == nil {
			pause(ctx, time.Second)
			return c.Close()
		}
		if ctx.Err() != nil {
			return err
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// stop ends the server.
func (s *Server) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = s.cmd.Wait()
}

// processes are the server's: nginx has a master and a worker.
func (s *Server) processes() []string {
	if s.cmd == nil {
		return nil
	}
	id := strconv.Itoa(s.cmd.Process.Pid)
	children, _ := os.ReadFile("/proc/" + id + "/task/" + id + "/children") // there may be none
	return append(strings.Fields(string(children)), id)
}

// cpu returns what the server has worked since it started, to the nanosecond.
func (s *Server) cpu() (all time.Duration) {
	for _, id := range s.processes() {
		n, _ := strconv.Atoi(id)
		var t unix.Timespec
		if unix.ClockGettime(int32(^n<<3|2), &t) == nil { // as clock_getcpuclockid(3) makes it
			all += time.Duration(t.Nano())
		}
	}
	return all
}

// memory returns how many bytes of memory the server has, and notes it.
func (s *Server) memory() float64 {
	s.last = 0
	for _, id := range s.processes() {
		status, _ := os.ReadFile("/proc/" + id + "/status")
		for line := range strings.Lines(string(status)) {
			if kib, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				n, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(kib), " kB"), 64)
				s.last += n * 1024
			}
		}
	}
	return s.last
}

// profile writes a profile of the time that follows into a file, if the server gives one.
func (s *Server) profile(ctx context.Context, d time.Duration, file string) error {
	if s.pprof == "" {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%.0f", s.pprof, math.Ceil(d.Seconds())), http.NoBody)
	if err != nil {
		return fmt.Errorf("asking for a profile: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("reading a profile: %w", err)
	}
	return os.WriteFile(file, all, 0o600)
}
