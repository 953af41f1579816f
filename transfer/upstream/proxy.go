package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// checkEnvironment returns what is wrong with the proxies that the environment
// names. net/http ignores one that it can't parse, and uses no proxy at all.
func checkEnvironment() error {
	var wrong []error
	for _, names := range [][2]string{{"HTTPS_PROXY", "https_proxy"}, {"HTTP_PROXY", "http_proxy"}} {
		for _, name := range names { // the first one that is set counts
			if value := os.Getenv(name); value != "" {
				wrong = append(wrong, checkVariable(name, value))
				break
			}
		}
	}
	return errors.Join(wrong...)
}

// checkVariable returns what is wrong with a variable's value. It does not quote
// the value, which may hold a password. A missing scheme means http.
func checkVariable(name, value string) error {
	if value == "" {
		return nil
	}
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil { // the cause quotes the password
		return fmt.Errorf("%s is not the URL of a proxy: it can't be parsed", name)
	}
	if err := checkProxy(u); err != nil {
		return fmt.Errorf("%s is not the URL of a proxy: %w", name, err)
	}
	return nil
}

// checkProxy returns what is wrong with a proxy's URL. It does not quote the URL,
// which may hold a password.
func checkProxy(u *url.URL) error {
	if u == nil {
		return nil
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return errors.New("the scheme must be http, https, socks5 or socks5h")
	}
	if u.Hostname() == "" {
		return errors.New("the host is missing")
	}
	if u.Path != "" && u.Path != "/" { // net/http makes a path of a URL that it can't read
		return errors.New("there must be no path")
	}
	return nil
}

// proxyFor returns the proxy that a request to u goes through, nil if none.
func (n *network) proxyFor(u *url.URL) (*url.URL, error) {
	if n.proxy != nil {
		return n.proxy, nil
	}
	p, err := http.ProxyFromEnvironment(&http.Request{URL: u})
	if err != nil {
		// The cause quotes the variable, with the password.
		return nil, &refusal{reason: "the proxy named in the environment can't be read"}
	}
	if err := checkProxy(p); err != nil {
		return nil, &refusal{reason: "the proxy named in the environment can't be used: " + err.Error()}
	}
	return p, nil
}

// proxyOfTrip is a Transport's Proxy. It tells the Transport that an https proxy is
// an http one, and the dialer does TLS with it. The Transport would do so with the
// target's TLS settings, which may say not to verify.
func proxyOfTrip(req *http.Request) (*url.URL, error) {
	p := tripOf(req.Context()).proxy
	if p == nil || p.Scheme != "https" {
		return p, nil
	}
	plain := *p
	plain.Scheme, plain.Host = "http", hostPort(p)
	return &plain, nil
}
