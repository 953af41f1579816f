package setup

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxRegistries bounds the registries of one plan.
	maxRegistries = 64
	// maxName bounds a host's name (RFC 1035 section 2.3.4).
	maxName = 253
)

// An Endpoint is where clients reach a proxy. Nothing in it means anything to a shell, or ends
// a string in JSON, TOML or YAML. Make it with ParseEndpoint.
type Endpoint struct{ scheme, host string }

// ParseEndpoint reads http://host[:port] or https://host[:port]. Without a scheme it is
// plain HTTP. Anything else, such as a path or a login, is an error.
func ParseEndpoint(text string) (Endpoint, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return Endpoint{}, errors.New("the proxy's address is not a URL")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return Endpoint{}, fmt.Errorf("the proxy's address begins with %q: use http:// or https://", u.Scheme)
	}
	if u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		return Endpoint{}, errors.New("the proxy's address has more than a scheme, a host and a port: it takes no login and no path")
	}
	return NewEndpoint(u.Scheme == "https", u.Host)
}

// NewEndpoint returns the endpoint at host[:port], which is checked, with or without TLS.
func NewEndpoint(overTLS bool, host string) (Endpoint, error) {
	host, err := parseHost(host)
	if err != nil {
		return Endpoint{}, err
	}
	if overTLS {
		return Endpoint{"https", host}, nil
	}
	return Endpoint{"http", host}, nil
}

// URL returns http://host[:port] or https://host[:port].
func (e Endpoint) URL() string { return e.scheme + "://" + e.host }

// Host returns host[:port], an IPv6 address in brackets.
func (e Endpoint) Host() string { return e.host }

// Name returns the host alone, an IPv6 address without brackets.
func (e Endpoint) Name() string { return (&url.URL{Host: e.host}).Hostname() }

// Plain reports whether it is reached without TLS.
func (e Endpoint) Plain() bool { return e.scheme == "http" }

// Loopback reports whether it certainly is the client's own machine.
func (e Endpoint) Loopback() bool {
	a, err := netip.ParseAddr(e.Name())
	return e.Name() == "localhost" || err == nil && a.IsLoopback()
}

// parseHost checks host[:port], and returns it in lower case.
func parseHost(text string) (string, error) {
	bad := fmt.Errorf("%q is no host[:port]", text)
	if len(text) > maxName+8 {
		return "", errors.New("that host[:port] is too long")
	}
	name, port := strings.ToLower(text), ""
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, ']') {
		name, port = name[:i], name[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port != strconv.FormatUint(n, 10) {
			return "", bad
		}
	}
	if in, ok := strings.CutPrefix(name, "["); ok {
		a, err := netip.ParseAddr(strings.TrimSuffix(in, "]"))
		if err != nil || !a.Is6() || a.Zone() != "" || !strings.HasSuffix(in, "]") {
			return "", bad
		}
		name = "[" + a.String() + "]"
	} else if !isName(name) {
		return "", bad
	}
	if port == "" {
		return name, nil
	}
	return net.JoinHostPort(strings.Trim(name, "[]"), port), nil
}

// isName reports whether a text in lower case is a host's name or an IPv4 address.
func isName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || label[0] == '_' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// ParseRegistries reads names of registries, host[:port] each, with commas between. All
// names of Docker Hub become docker.io. No name twice; none at all if the text is empty.
func ParseRegistries(text string) (names []string, err error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	for one := range strings.SplitSeq(text, ",") {
		name, err := parseHost(strings.TrimSpace(one))
		if err != nil {
			return nil, fmt.Errorf("a registry: %w", err)
		}
		if name == "index.docker.io" || name == "registry-1.docker.io" {
			name = "docker.io"
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		if len(names) > maxRegistries {
			return nil, fmt.Errorf("more than %d registries", maxRegistries)
		}
	}
	return names, nil
}

// ParseCA reads certificates in PEM (RFC 7468), and returns them without anything else that the
// text holds, such as a key. An error if there are none.
func ParseCA(text []byte) ([]byte, error) {
	var all bytes.Buffer
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("reading a certificate: %w", err)
		}
		all.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
	}
	if all.Len() == 0 {
		return nil, errors.New("there is no certificate in PEM")
	}
	return all.Bytes(), nil
}

// server is where a registry itself answers, as containerd has it.
func server(registry string) string {
	if registry == "docker.io" {
		return "https://registry-1.docker.io"
	}
	return "https://" + registry
}
