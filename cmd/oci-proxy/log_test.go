package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"oci-proxy/node/config"
	"oci-proxy/node/journal"
	"oci-proxy/transfer/upstreamtest"
)

// The first line of a node's log says what runs and where it is reached, and every line is
// of the schema that the documentation promises.
func TestFirstLineOfTheLog(t *testing.T) {
	t.Parallel()
	gossip, peers := fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	file, addr := nodeConfig(t, upstreamtest.New(t), t.TempDir(), "log_format: json\nlog_level: debug\nqueue_timeout: 9m\n"+
		"cluster: {name: one, id: blue, bind_addr: \""+gossip+"\", peer_addr: \""+peers+"\"}")
	p := start(t, addr, "serve", "-c", file)
	first, _, _ := strings.Cut(p.log.String(), "\n")
	var line map[string]any
	if err := json.Unmarshal([]byte(first), &line); err != nil {
		t.Fatalf("%v in %s", err, first)
	}
	for key, want := range map[string]string{
		"msg": "oci-proxy starts", "level": "INFO", "version": build().version, "commit": build().commit, "config": file, "address": addr,
		"cluster": "one", "cluster_id": "blue", "gossip": gossip, "peers": peers, "page": "http://" + addr + "/",
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %q", key, line[key], want)
		}
	}
	for line := range strings.Lines(p.log.String()) {
		if err := journal.Check([]byte(strings.TrimSpace(line))); err != nil && strings.HasSuffix(line, "\n") {
			t.Errorf("%v in %s", err, line)
		}
	}
}

func TestPageURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		base, at string
		tls      bool
		want     string
	}{
		{"", "[::]:80", false, "http://localhost:80/"},
		{"", "0.0.0.0:443", true, "https://localhost:443/"},
		{"", "192.0.2.1:8080", false, "http://192.0.2.1:8080/"},
		{"https://mirror.example", "[::]:80", false, "https://mirror.example"},
	} {
		at, err := net.ResolveTCPAddr("tcp", c.at)
		if err != nil {
			t.Fatal(err)
		}
		cfg := &config.Config{BaseURL: c.base}
		if c.tls {
			cfg.TLS.CertFile, cfg.TLS.KeyFile = "cert", "key"
		}
		if got := pageURL(cfg, at); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
