package node

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"oci-proxy/node/config"
	"oci-proxy/node/reply"
	"oci-proxy/node/setup"
)

// A guide tells clients' machines how to pull through this node: /_/setup/. It is as open as the
// page: what it says holds no secret and no name of a registry that the visitor has not
// given.
type guide struct {
	cfg  *config.Config
	cert *certificate
}

// ServeHTTP answers with a shell script, or with the plan as JSON for ?format=json. Nothing of
// the request gets into either unless it is a valid host[:port].
func (g guide) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !slices.Contains(setup.Clients(), r.PathValue("client")) {
		reply.Fail(w, http.StatusNotFound, reply.Error{Code: "UNSUPPORTED", Message: "no such client: there are " + strings.Join(setup.Clients(), ", ")})
		return
	}
	plan, err := g.plan(r)
	if err != nil {
		reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "UNSUPPORTED", Message: err.Error()})
		return
	}
	switch format := r.URL.Query().Get("format"); format {
	case "json":
		reply.JSON(w, plan)
	case "", "sh":
		w.Header().Set("Cache-Control", "no-store")
		reply.Body(w, "text/x-shellscript; charset=utf-8", plan.Script())
	default:
		reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "UNSUPPORTED", Message: "format is json or sh"})
	}
}

// plan is the plan that a request asks for.
func (g guide) plan(r *http.Request) (setup.Plan, error) {
	endpoint, err := g.endpoint(r)
	if err != nil {
		return setup.Plan{}, err
	}
	names, err := setup.ParseRegistries(strings.Join(r.URL.Query()["registries"], ","))
	if err != nil {
		return setup.Plan{}, err
	}
	o := setup.Options{Proxy: endpoint, Registries: names, Login: g.cfg.Auth.Asked(), NotHub: g.cfg.DefaultRegistry != config.DockerHub}
	if !endpoint.Plain() {
		o.CA = g.cert.authority(endpoint.Name())
	}
	return setup.New(r.PathValue("client"), o)
}

// endpoint is where the request's client reaches the proxy: base_url, or else the Host that it has
// used.
func (g guide) endpoint(r *http.Request) (setup.Endpoint, error) {
	if u, err := url.Parse(g.cfg.BaseURL); err == nil && u.Host != "" {
		return setup.NewEndpoint(u.Scheme == "https", u.Host)
	}
	if r.TLS == nil && tlsAhead(r.Header) {
		return setup.Endpoint{}, errors.New("something in front of this node ends TLS: set base_url, so that clients are not told to do without it")
	}
	e, err := setup.NewEndpoint(r.TLS != nil, r.Host)
	if err != nil {
		return e, errors.New("the Host of the request is no host[:port] that clients could use; set base_url")
	}
	return e, nil
}

// tlsAhead reports whether a header of a request says that it came over TLS to a proxy in front:
// X-Forwarded-Proto and its likes, or Forwarded (RFC 7239 section 5.4). Anybody may send them: they are
// good enough to refuse by, and for nothing else.
func tlsAhead(h http.Header) bool {
	for _, name := range []string{"X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Forwarded-Ssl"} {
		for part := range strings.SplitSeq(strings.Join(h.Values(name), ","), ",") {
			if part = strings.ToLower(strings.TrimSpace(part)); part == "https" || part == "on" {
				return true
			}
		}
	}
	pairs := strings.FieldsFunc(strings.Join(h.Values("Forwarded"), ","), func(r rune) bool { return r == ',' || r == ';' })
	return slices.ContainsFunc(pairs, func(pair string) bool {
		key, value, _ := strings.Cut(pair, "=")
		return strings.EqualFold(strings.TrimSpace(key), "proto") && strings.EqualFold(strings.Trim(value, "\" \t"), "https")
	})
}
