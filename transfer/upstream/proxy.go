package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// checkEnvironment says what is wrong with the proxies that the environment
// names: net/http passes over one that it can't parse, and goes straight.
func checkEnvironment() error {
	var wrong []error
	for _, names := range [][2]string{{"HTTPS_PROXY", "https_proxy"}, {"HTTP_PROXY", "http_proxy"}} {
		for _, name := range names { // the first that is set counts
			if value := os.Getenv(name); value != "" {
				wrong = append(wrong, checkVariable(name, value))
				break
			}
		}
	}
	return errors.Join(wrong...)
}

// checkVariable says what is wrong with a variable's value, without repeating
// it. A scheme may be missing; then it is http.
func checkVariable(name, value string) error {
	if value == "" {
		return nil
	}
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil { // the cause would show the password
		return fmt.Errorf("%s names no proxy: the value is no URL", name)
	}
	if err := checkProxy(u); err != nil {
		return fmt.Errorf("%s names no proxy: %w", name, err)
	}
	return nil
}

// checkProxy says what is wrong with a proxy's URL, without repeating it: it
// may hold a password.
func checkProxy(u *url.URL) error {
	if u == nil {
		return nil
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return errors.New("a proxy is one of http, https, socks5 and socks5h")
	}
	if u.Hostname() == "" {
		return errors.New("the proxy's host is missing")
	}
	if u.Path != "" && u.Path != "/" { // also what net/http makes of a URL it can't read
		return errors.New("a proxy's URL has no path")
	}
	return nil
}

// proxyFor returns the proxy that a request for u goes through, nil if none.
func (r *registry) proxyFor(u *url.URL) (*url.URL, error) {
	if r.Proxy != nil {
		return r.Proxy, nil
	}
	p, err := http.ProxyFromEnvironment(&http.Request{URL: u})
	if err != nil {
		// The cause would repeat the variable's value, password and all.
		return nil, &refusal{"the proxy named in the environment can't be read"}
	}
	if err := checkProxy(p); err != nil {
		return nil, &refusal{"the proxy named in the environment can't be used: " + err.Error()}
	}
	return p, nil
}

// proxyOfTrip is a Transport's Proxy. It speaks of an https proxy as of an
// http one, because the dialer does TLS with it: the Transport would use the
// target's TLS settings, which may be not to verify.
func proxyOfTrip(req *http.Request) (*url.URL, error) {
	p := tripOf(req.Context()).proxy
	if p == nil || p.Scheme != "https" {
		return p, nil
	}
	plain := *p
	plain.Scheme, plain.Host = "http", hostPort(p)
	return &plain, nil
}
