package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node"
	"oci-proxy/node/config"
)

const (
	// demoNodes is the number of nodes in the demo's mesh.
	demoNodes = 3
	// demoPatience bounds each wait of the demo.
	demoPatience = 30 * time.Second
	// demoImage is the image that the demo pulls.
	demoImage = "demo/hello"
)

// demo runs a mesh of three nodes on loopback in front of a small registry of its
// own, so it needs neither internet nor config. It pulls an image through each node,
// prints where each blob came from, and goes on serving.
func demo(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("demo", flag.ContinueOnError)
	once := fl.Bool("once", false, "stop after the pull: exit with status 0 if every byte was right")
	port := fl.Int("port", 0, "the first node's `port`; the others use the next ports (default: free ones)")
	if err := parse(fl, args, s); err != nil {
		return err
	}
	if last := 65535 - demoNodes + 1; *port < 0 || *port > last {
		return badUsage(s, "oci-proxy demo: -port %d can't be the first of %d ports; use a number from 1 to %d", *port, demoNodes, last)
	}
	return runDemo(ctx, *port, *once, s)
}

// runDemo runs the demo, with its first node on the port (0: a free one).
func runDemo(ctx context.Context, port int, once bool, s streams) (err error) {
	dir, err := os.MkdirTemp("", "oci-proxy-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	registry, err := newDemoRegistry()
	if err != nil {
		return err
	}
	defer registry.close()
	m := &demoMesh{
		dir: dir, registry: registry, secret: hex.EncodeToString(randomBytes(32)), out: s.out,
		log: slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	life, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		err = errors.Join(err, m.wait())
	}()
	if err := m.start(life, port); err != nil {
		return err
	}
	if err := m.show(ctx); err != nil {
		return err
	}
	if once {
		return nil
	}
	m.invite()
	<-ctx.Done()
	return nil
}

// randomBytes returns n random bytes.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand never fails
	return b
}

// A demoMesh holds the nodes of the demo.
type demoMesh struct {
	dir      string
	registry *demoRegistry
	secret   string
	out      io.Writer
	log      *slog.Logger
	nodes    []*node.Node
	addrs    []string // of the ports for clients
	ended    chan error
}

// start starts the nodes, with the first one as the seed of the others, and waits
// until all know each other.
func (m *demoMesh) start(ctx context.Context, port int) error {
	m.ended = make(chan error, demoNodes)
	for i := range demoNodes {
		if err := m.add(ctx, i, port); err != nil {
			return err
		}
	}
	wait, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	for _, n := range m.nodes {
		if err := n.AwaitMembers(wait, demoNodes); err != nil {
			return err
		}
	}
	return nil
}

// add starts node i.
func (m *demoMesh) add(ctx context.Context, i, port int) error {
	if port != 0 {
		port += i
	}
	l, err := listen(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), net.Listen)
	if err != nil {
		return err
	}
	cfg, err := config.Parse("demo", []byte(m.config(i, l.Addr().(*net.TCPAddr).Port)), nil)
	if err != nil {
		return errors.Join(fmt.Errorf("the demo's config: %w", err), l.Close())
	}
	n, err := node.New(cfg, m.log.With("node", cfg.Cluster.Name))
	if err != nil {
		return errors.Join(err, l.Close())
	}
	m.nodes, m.addrs = append(m.nodes, n), append(m.addrs, l.Addr().String())
	go func() { m.ended <- n.Run(ctx, l) }()
	return nil
}

// config returns the text of node i's config, with the port for clients.
func (m *demoMesh) config(i, port int) string {
	name, seeds := fmt.Sprintf("node-%d", i+1), "[]"
	if i > 0 {
		seeds = fmt.Sprintf("[%q]", m.nodes[0].GossipAddr())
	}
	return fmt.Sprintf("port: %d\naddress: 127.0.0.1\ndefault_registry: %q\ndefaults: {cache_dir: %q, cache_max_size: 1g}\nregistries: {%q: {insecure: true}}\n"+
		"cluster: {name: %s, bind_addr: \"127.0.0.1:0\", peer_addr: \"127.0.0.1:0\", secret: %s, seeds: %s}\nshutdown_timeout: 5s\n",
		port, m.registry.host, filepath.Join(m.dir, name), m.registry.host, name, m.secret, seeds)
}

// wait waits until all nodes have ended.
func (m *demoMesh) wait() error {
	var errs []error
	for range m.nodes {
		errs = append(errs, <-m.ended)
	}
	return errors.Join(errs...)
}

// show pulls the image through each node, and prints where each blob came from.
func (m *demoMesh) show(ctx context.Context) error {
	fmt.Fprintf(m.out, "A mesh of %d nodes in front of a registry at %s. The image %s is pulled through each node:\n\n", demoNodes, m.registry.host, demoImage)
	tab := tabwriter.NewWriter(m.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "NODE\tWHAT\tDIGEST\tBYTES\tSOURCE (Cache-Status)")
	for i, addr := range m.addrs {
		if err := m.pull(ctx, tab, fmt.Sprintf("node-%d", i+1), addr); err != nil {
			return err
		}
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	for d, n := range m.registry.blobGets() {
		if n != 1 {
			return fmt.Errorf("the registry was asked %d times for %s, want once", n, d)
		}
	}
	fmt.Fprintf(m.out, "\nEvery byte was right. The registry was asked for the manifest and each blob only once.\n")
	return nil
}

// pull pulls the image through one node as a client does: first the manifest by its
// tag, then the blobs that it lists.
func (m *demoMesh) pull(ctx context.Context, tab io.Writer, name, addr string) error {
	base := "http://" + addr + "/v2/" + demoImage
	body, err := m.pullPart(ctx, tab, name, "manifest", base+"/manifests/latest", m.registry.manifest)
	if err != nil {
		return err
	}
	var manifest struct {
		Config demoDescriptor
		Layers []demoDescriptor
	}
	if err := json.Unmarshal(body, &manifest); err != nil {
		return fmt.Errorf("reading the manifest through %s: %w", name, err)
	}
	for i, part := range append([]demoDescriptor{manifest.Config}, manifest.Layers...) {
		what := "config"
		if i > 0 {
			what = fmt.Sprintf("layer %d", i)
		}
		if _, err := m.pullPart(ctx, tab, name, what, base+"/blobs/"+part.Digest.String(), part.Digest); err != nil {
			return err
		}
	}
	return nil
}

// pullPart pulls one manifest or blob, checks its digest, and prints a line.
func (m *demoMesh) pullPart(ctx context.Context, tab io.Writer, name, what, url string, want digest.Digest) ([]byte, error) {
	body, how, err := m.get(ctx, url)
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(body); got != want {
		return nil, fmt.Errorf("the %s through %s has the digest %s, want %s", what, name, got, want)
	}
	fmt.Fprintf(tab, "%s\t%s\t%s\t%d\t%s\n", name, what, short(want), len(body), how)
	return body, nil
}

// short returns the first 12 characters of a digest, as docker shows it.
func short(d digest.Digest) string { return d.Encoded()[:12] }

// get returns a whole answer, and its Cache-Status.
func (m *demoMesh) get(ctx context.Context, url string) (body []byte, how string, err error) {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	body, err = io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s%s", url, resp.Status, reason(body))
	}
	return body, resp.Header.Get("Cache-Status"), err
}

// invite prints what to try next.
func (m *demoMesh) invite() {
	fmt.Fprintf(m.out, "\nThe mesh goes on serving until you stop it (Ctrl-C). Try:\n"+
		"  docker pull %s/%s\n"+
		"  oci-proxy status -addr %s\n"+
		"  curl http://%s/_/stats\n"+
		"Pages: %s\n",
		m.addrs[0], demoImage, m.addrs[1], m.addrs[2], "http://"+strings.Join(m.addrs, "/ http://")+"/")
}
