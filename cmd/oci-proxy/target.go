package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"oci-proxy/node"
	"oci-proxy/node/config"
)

// maxAnswer bounds a node's answer, in bytes.
const maxAnswer = 16 << 20

// A target is a running node with the login to it.
type target struct {
	cfg  *config.Config
	addr string // as the user gave it
	base string // the beginning of its URLs
	auth config.Auth
	tls  *tls.Config
}

// nodeFlags defines the flags that name a running node.
func nodeFlags(fl *flag.FlagSet) (file, addr *string) {
	file = fl.String("c", "", "the config `file` with the node's port and login")
	addr = fl.String("addr", "", "the node's `host:port` or URL (default: the node that runs on this machine)")
	return file, addr
}

// jsonFlag defines -o json. usage says what is printed then.
func jsonFlag(fl *flag.FlagSet, usage string) *bool {
	is := new(bool)
	fl.Func("o", usage, func(format string) error {
		if *is = format == "json"; !*is {
			return errors.New("there is json alone")
		}
		return nil
	})
	return is
}

// parseTarget parses the flags of a command that asks a running node.
func parseTarget(name string, args []string, s streams) (target, error) {
	fl := flag.NewFlagSet(name, flag.ContinueOnError)
	file, addr := nodeFlags(fl)
	if err := parse(fl, args, s); err != nil {
		return target{}, err
	}
	return targetOf(*file, *addr, s)
}

// parseMixed parses flags that may stand before, between and behind other arguments, which
// it returns.
func parseMixed(fl *flag.FlagSet, args []string, s streams) (names []string, err error) {
	for {
		if err := parseFlags(fl, args, s); err != nil {
			return nil, err
		}
		if fl.NArg() == 0 {
			return names, nil
		}
		names, args = append(names, fl.Arg(0)), fl.Args()[1:]
	}
}

// parseNamedTarget parses the flags of a command that asks a running node about one
// thing. Flags may stand before its name or behind it.
func parseNamedTarget(command, what string, args []string, s streams) (t target, name string, err error) {
	fl := flag.NewFlagSet(command, flag.ContinueOnError)
	file, addr := nodeFlags(fl)
	if err := parseFlags(fl, args, s); err != nil {
		return target{}, "", err
	}
	if fl.NArg() == 0 || fl.Arg(0) == "" {
		return target{}, "", badUsage(s, "usage: oci-proxy %s [flags] %s", command, what)
	}
	name = fl.Arg(0)
	if err := parse(fl, fl.Args()[1:], s); err != nil {
		return target{}, "", err
	}
	t, err = targetOf(*file, *addr, s)
	return t, name, err
}

// targetOf returns the node at addr, or the one that runs here, with the config's login.
func targetOf(file, addr string, s streams) (target, error) {
	var cfg *config.Config
	var err error
	if addr == "" {
		cfg, err = ownNode(file, s)
	} else {
		cfg, err = find(configPath(file), os.Environ(), s)
	}
	if err != nil {
		return target{}, err
	}
	t := target{cfg: cfg, addr: cmp.Or(addr, ownAddr(cfg)), auth: cfg.Auth}
	t.base = baseURL(t.addr, cfg.TLS.On())
	t.tls = &tls.Config{InsecureSkipVerify: true, VerifyConnection: t.verify(cfg)} // VerifyConnection does the verifying
	return t, nil
}

// ownAddr returns the host:port at which the node of the config on this machine is
// reached.
func ownAddr(cfg *config.Config) string {
	return net.JoinHostPort(host(cfg.Address), strconv.Itoa(cfg.Port))
}

// host returns the host at which a node on this machine that listens on address is
// reached.
func host(address string) string {
	if ip, err := netip.ParseAddr(address); address == "" || err == nil && ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return address
}

// baseURL returns the beginning of a node's URLs. addr is host:port, or a URL without
// a path.
func baseURL(addr string, overTLS bool) string {
	switch {
	case strings.HasPrefix(addr, "http://"), strings.HasPrefix(addr, "https://"):
		return strings.TrimSuffix(addr, "/")
	case overTLS:
		return "https://" + addr
	default:
		return "http://" + addr
	}
}

// verify returns a check that the node is the one that may see the login. It accepts
// the very certificate that the config names, whoever issued it, or else one that
// the system trusts for the node's name. Without a login there is nothing to lose on
// this machine, so there it accepts any certificate.
func (t target) verify(cfg *config.Config) func(tls.ConnectionState) error {
	host, loopback := nodesHost(t.base)
	return func(s tls.ConnectionState) error {
		if slices.ContainsFunc(ownCertificates(cfg), s.PeerCertificates[0].Equal) {
			return nil
		}
		if t.auth.Username == "" && loopback {
			return nil
		}
		opts := x509.VerifyOptions{DNSName: host, Intermediates: x509.NewCertPool()}
		for _, c := range s.PeerCertificates[1:] {
			opts.Intermediates.AddCert(c)
		}
		if _, err := s.PeerCertificates[0].Verify(opts); err != nil {
			return fmt.Errorf("%w (use -c with the config that names this certificate, or a host name that the certificate is for)", err)
		}
		return nil
	}
}

// ownCertificates are those of the node of the config, as far as this command may read them.
func ownCertificates(cfg *config.Config) []*x509.Certificate {
	if !cfg.TLS.Files() {
		return node.Certificates(cfg)
	}
	own, err := config.ReadCertificate(cfg.TLS)
	if err != nil {
		return nil
	}
	return []*x509.Certificate{own.Leaf}
}

// nodesHost returns the host in a URL, and whether it is certainly this machine.
func nodesHost(base string) (host string, loopback bool) {
	u, err := url.Parse(base)
	if err != nil {
		return base, false // no certificate is for that, and no request can be sent to it
	}
	a, err := netip.ParseAddr(u.Hostname())
	return u.Hostname(), u.Hostname() == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// guardLogin refuses a connection over which others could see the login. Over plain
// HTTP, the login goes only to this machine, unless the user wrote http://. It is
// called with the address to dial, after the name was resolved.
func (t target) guardLogin(_ context.Context, _, address string, _ syscall.RawConn) error {
	if t.auth.Username == "" || strings.HasPrefix(t.base, "https://") || strings.HasPrefix(t.addr, "http://") {
		return nil
	}
	at, err := netip.ParseAddrPort(address)
	if err == nil && (at.Addr().Unmap().IsLoopback() || at.Addr().IsUnspecified() || isOwn(at.Addr())) {
		return nil
	}
	return errors.New("the login would be sent unencrypted: use https://, or begin the address with http:// to send it anyway")
}

// isOwn reports whether the address is one of this machine's.
func isOwn(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addrs, func(own net.Addr) bool {
		p, err := netip.ParsePrefix(own.String())
		return err == nil && p.Addr().Unmap() == a.Unmap().WithZone("")
	})
}

// ask sends a request to the node, and returns the body of an answer with status 200.
func (t target) ask(ctx context.Context, method, path string) ([]byte, error) {
	return t.send(ctx, method, path, nil)
}

// send is ask with a body of JSON, unless that is nil.
func (t target) send(ctx context.Context, method, path string, what any) ([]byte, error) {
	var text []byte
	header := http.Header{}
	if what != nil {
		var err error
		if text, err = json.Marshal(what); err != nil {
			return nil, err
		}
		header.Set("Content-Type", "application/json")
	}
	resp, err := t.do(ctx, method, path, header, func() io.Reader { return bytes.NewReader(text) })
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	return answered(resp)
}

// answered reads an answer, which is an error unless its status is 200.
func answered(resp *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusUnauthorized:
		return nil, errors.New("the node requires a login: use -c with a config that has it, or set OCI_PROXY_AUTH__USERNAME and OCI_PROXY_AUTH__PASSWORD")
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answered %d %s%s", resp.StatusCode, http.StatusText(resp.StatusCode), reason(body))
	}
	return body, nil
}

// do sends a request to the node with the login, and returns whatever it answers. body
// makes the body anew, nil for none. Close the answer's.
func (t target) do(ctx context.Context, method, path string, header http.Header, body func() io.Reader) (*http.Response, error) {
	resp, reached, err := t.once(ctx, method, path, header, body, "")
	// The node does not know the name by which we call it, and keeps other sites' pages
	// from reading it through a browser. We are none: what we reached may be in Host.
	if err == nil && resp.StatusCode == http.StatusMisdirectedRequest && reached != "" {
		_ = resp.Body.Close() // nothing of it is wanted
		resp, _, err = t.once(ctx, method, path, header, body, reached)
	}
	return resp, err
}

// once sends one request to the node, with that Host unless it is "". It returns the
// address that was reached.
func (t target) once(ctx context.Context, method, path string, header http.Header, body func() io.Reader, host string) (resp *http.Response, reached string, err error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reached = c.Conn.RemoteAddr().String() }})
	var content io.Reader
	if body != nil {
		content = body()
	}
	req, err := http.NewRequestWithContext(ctx, method, t.base+path, content)
	if err != nil {
		return nil, "", err
	}
	req.Host, req.Header = host, header
	if t.auth.Username != "" {
		req.SetBasicAuth(t.auth.Username, t.auth.Password.Reveal())
	}
	client := &http.Client{
		// A proxy from the environment is for upstream, not for a nearby node.
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: t.tls, DialContext: (&net.Dialer{ControlContext: t.guardLogin}).DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err = client.Do(req)
	return resp, reached, err
}

// reason returns the message of an OCI error answer, to be appended to a status.
func reason(body []byte) string {
	var answer struct{ Errors []struct{ Message string } }
	if json.Unmarshal(body, &answer) != nil || len(answer.Errors) == 0 {
		return ""
	}
	return ": " + answer.Errors[0].Message
}
