package main

import (
	"context"
	"errors"
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
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Server is a process on the first processor, or several, or the registry itself, which has none.
type Server struct {
	Addr       string    // host:port
	others     []*Server // of its cluster
	folder     string
	idle, last float64 // memory in bytes

	gossip string // host:port, of one in a cluster

	cmd   *exec.Cmd
	pprof string          // host:port, "" for none
	holds map[string]bool // paths that it has answered
}

// A kind is how a server is started.
type kind struct {
	config  string // a template: $FOLDER, $PORT, $REGISTRY, $USER, $GOSSIP, $PEER, $SEED
	file    string // its name
	command func(program, file string) []string
	pprof   bool // it takes -pprof
	nodes   int  // how many of them are a cluster; 0: it is none
	pushed  bool // content is pushed to it; others get it from the registry, or as a file
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
	}, false, 0, false}
}

func node(bound string) kind {
	return kind{strings.Replace(nodeConfig, "$BOUND", bound, 1), "config.yaml", func(program, file string) []string {
		return []string{program, "serve", "-c", file}
	}, true, 0, false}
}

// distribution is a registry of CNCF Distribution that mirrors ours.
const distribution = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $FOLDER/cache}}
http: {addr: "$ADDRESS"}
proxy: {remoteurl: "http://$REGISTRY"}
`

// clusterConfig has no second copies, which would be made while it is measured or after.
const clusterConfig = `shutdown_timeout: 1s
cluster: {name: "$PEER", bind_addr: "$GOSSIP", peer_addr: "$PEER", seeds: ["$SEED"], peer_tls: $TLS, copies: 1}
`

func cluster(tls string) kind {
	k := node("4g")
	k.config += strings.Replace(clusterConfig, "$TLS", tls, 1)
	k.nodes = 3
	return k
}

// kinds are the servers that rows can name.
var kinds = map[string]kind{
	"nginx":              nginx("server { listen $ADDRESS; root $ROOT; }"),
	"nginx cache":        nginx(strings.Replace(nginxCache, "$BOUND", "8g", 1)),
	"nginx cache, 40 MB": nginx(strings.Replace(nginxCache, "$BOUND", "40m", 1)),
	"distribution":       {distribution, "config.yml", func(_, file string) []string { return []string{"registry", "serve", file} }, false, 0, false},
	"olareg": {"$ADDRESS", "address", func(_, file string) []string {
		address, _ := os.ReadFile(file) // it was written a moment ago
		_, port, _ := strings.Cut(string(address), ":")
		return []string{"olareg", "serve", "--addr", "127.0.0.1", "--port", port, "--dir", filepath.Join(filepath.Dir(file), "cache"), "--verbosity", "error"}
	}, false, 0, true},
	"node":               node("8g"),
	"node, 40 MB":        node("40m"),
	"three nodes":        cluster("true"),
	"three nodes, plain": cluster("false"),
}

// missing reports whether the program of a kind of server is not here. Those that nobody has to
// have are left out then.
func missing(kind string) bool {
	program, optional := map[string]string{"olareg": "olareg", "distribution": "registry"}[kind]
	if !optional {
		return false
	}
	_, err := exec.LookPath(program)
	return err != nil
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
	return k.mesh(ctx, b, name)
}

// mesh starts a server, and the other nodes of its cluster if it is one.
func (k kind) mesh(ctx context.Context, b *Bench, name string) (*Server, error) {
	first, err := k.start(ctx, b, name, "")
	if err != nil || k.nodes == 0 {
		return first, err
	}
	for i := 2; i <= k.nodes; i++ {
		s, err := k.start(ctx, b, fmt.Sprint(name, " ", i), first.gossip)
		if err != nil {
			first.stop()
			return nil, err
		}
		first.others = append(first.others, s)
	}
	return first, first.meet(ctx)
}

// start starts a process, and waits until it listens. seed is another one's address of gossip.
func (k kind) start(ctx context.Context, b *Bench, name, seed string) (*Server, error) {
	s, err := k.launch(ctx, b, name, seed)
	if err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		log, _ := os.ReadFile(filepath.Join(s.folder, "log")) // it may be empty
		s.stop()
		return nil, fmt.Errorf("%s does not listen: %w: %s", name, err, log)
	}
	s.idle = s.memory()
	return s, nil
}

// launch starts a process.
func (k kind) launch(ctx context.Context, b *Bench, name, seed string) (*Server, error) {
	var addrs [3]string // for clients, for gossip, for peers
	for i := range addrs {
		var err error
		if addrs[i], err = freeAddress(ctx); err != nil {
			return nil, err
		}
	}
	addr := addrs[0]
	if seed == "" {
		seed = addrs[1]
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
	config := strings.NewReplacer("$FOLDER", folder, "$PORT", port, "$ADDRESS", addr, "$REGISTRY", b.registry.Addr, "$USER", user, "$ROOT", b.root(),
		"$GOSSIP", addrs[1], "$PEER", addrs[2], "$SEED", seed).Replace(k.config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("writing a config: %w", err)
	}
	out, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		return nil, fmt.Errorf("making a log: %w", err)
	}
	defer out.Close()
	args := append([]string{"-c", "0"}, k.command(b.Program, file)...)
	s := &Server{Addr: addr, gossip: addrs[1], folder: folder, holds: map[string]bool{}}
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

// meet waits until all of a cluster know each other, and a moment more.
func (s *Server) meet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute+time.Duration(len(s.others))*2*time.Second)
	defer cancel()
	for _, one := range s.all() {
		for known := ""; !strings.Contains(known, fmt.Sprintf(`"nodes":%d,`, len(s.all()))); pause(ctx, 100*time.Millisecond) {
			var err error
			if known, err = get(ctx, "http://"+one.Addr+"/v2/"); err != nil {
				return fmt.Errorf("a cluster does not meet: %w", err)
			}
		}
	}
	pause(ctx, 2*time.Second)
	return ctx.Err()
}

// all returns the server and the others of its cluster.
func (s *Server) all() []*Server { return append([]*Server{s}, s.others...) }

// addrs returns where all of them listen.
func (s *Server) addrs() (addrs []string) {
	for _, one := range s.all() {
		addrs = append(addrs, one.Addr)
	}
	return addrs
}

// stop ends the server.
func (s *Server) stop() {
	for _, one := range s.all() {
		one.end()
	}
	for _, one := range s.all() {
		if one.cmd != nil {
			_ = one.cmd.Wait()
		}
	}
}

// processes are the server's: nginx has a master and a worker.
func (s *Server) processes() (all []string) {
	for _, one := range s.all() {
		if one.cmd != nil {
			id := strconv.Itoa(one.cmd.Process.Pid)
			children, _ := os.ReadFile("/proc/" + id + "/task/" + id + "/children") // there may be none
			all = append(append(all, strings.Fields(string(children))...), id)
		}
	}
	return all
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

// profile writes profiles of the time that follows into files, if the server gives some: of each
// node one, with its number after the name.
func (s *Server) profile(ctx context.Context, d time.Duration, name string) error {
	nodes := s.all()
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, one := range nodes {
		if one.pprof == "" {
			continue
		}
		file := name + ".pprof"
		if len(nodes) > 1 {
			file = fmt.Sprintf("%s-%d.pprof", name, i+1)
		}
		all.Go(func() {
			found, err := get(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%.0f", one.pprof, math.Ceil(d.Seconds())))
			if errs[i] = err; err == nil {
				errs[i] = os.WriteFile(file, []byte(found), 0o600)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// get returns what is at an address.
func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", fmt.Errorf("asking: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", url, err)
	}
	return string(all), nil
}
