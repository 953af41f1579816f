package node

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"time"

	"oci-proxy/node/gate"
	"oci-proxy/node/reply"
	"oci-proxy/node/rules"
	"oci-proxy/transfer"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/trace"
)

// An api answers the registry API, /v2.
type api struct {
	name    string   // of the node, in Cache-Status
	hit     []string // the Cache-Status of what the node holds
	names   func() oci.Names
	asks    func(registry string) bool
	sites   sites
	rules   *rules.Rules
	gate    *gate.Gate
	fetcher *transfer.Fetcher
	pulls   *pulls
	totals  func() totals
	waited  func(time.Duration) // hears how long a pull waited for its turn
	tracing tracing
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()["Docker-Distribution-Api-Version"] = apiVersion
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		reply.Fail(w, http.StatusMethodNotAllowed, reply.Error{Code: "UNSUPPORTED", Message: "this is a cache: push to the registry itself"})
		return
	}
	who, ok := a.gate.Admit(w, r)
	if !ok {
		return
	}
	if r.URL.Path == "/v2" || r.URL.Path == "/v2/" {
		a.ping(w)
		return
	}
	req, err := oci.ParsePath(r.URL.EscapedPath(), namespace(r), a.names())
	if err == nil {
		one := newAnswering(w, r, req)
		a.pulls.begin(one)
		defer a.pulls.end(one)
		traced, span := a.tracing.begin(r, req)
		defer func() { a.tracing.end(traced, span, err) }()
		err = a.pull(w, traced, req, who)
	}
	if err != nil {
		a.markKept(w, req, err)
		noteOperator(r, a.gate.Knows(r, who))
		fail(w, r, a.gate, req.Resource, err)
	}
}

// namespace is the ?ns= of a client, "" if it gave none.
func namespace(r *http.Request) string {
	if r.URL.RawQuery == "" {
		return ""
	}
	return r.URL.Query().Get("ns")
}

// notListed is why a registry is refused.
const notListed = "this proxy serves only the registries in its config (whitelist_mode)"

// pull answers a request that is understood, in its turn. An error means that
// nothing has been written.
func (a *api) pull(w http.ResponseWriter, r *http.Request, req oci.Request, who gate.Client) error {
	if req.NS != "" {
		w.Header().Set("OCI-Namespace", req.Registry)
	}
	if !a.asks(req.Registry) {
		return &oci.Error{Kind: oci.Denied, Registry: req.Registry, Reason: notListed}
	}
	user := userOf(who)
	if err := a.rules.Refuse(user, req.Ref); err != nil {
		return err
	}
	asked := time.Now()
	_, queue := trace.Start(r.Context(), "queue")
	end, err := a.gate.Turn(r, who)
	queue.End(err)
	waited := time.Since(asked)
	a.waited(waited)
	noteQueue(r, waited)
	if err != nil {
		return err
	}
	defer end()
	caller := &recordOf(r).caller
	caller.Client, caller.User = who.String(), user
	return a.answer(w, r, req)
}

// userOf is for whom a client pulls, as access rules know people.
func userOf(who gate.Client) oci.User {
	if who.Unsure() {
		return oci.Unknown
	}
	return oci.Named(who.User())
}

// answer answers a request. An error means that nothing has been written.
func (a *api) answer(w http.ResponseWriter, r *http.Request, req oci.Request) error {
	switch req.Resource {
	case oci.BlobResource:
		if r.Method == http.MethodHead {
			return a.headBlob(w, r, req)
		}
		return a.getBlob(w, r, req)
	case oci.TagsResource, oci.ReferrersResource:
		return a.list(w, r, req)
	default:
		return a.manifest(w, r, req)
	}
}

// ping answers /v2/ without asking anyone: clients give up if it fails.
func (a *api) ping(w http.ResponseWriter) {
	body, err := json.Marshal(a.totals())
	if err != nil { // numbers always encode
		body = []byte("{}")
	}
	reply.Body(w, "application/json", body)
}

// refused matches the parameters of a type that a client does not take (RFC 9110
// section 12.4.2).
var refused = regexp.MustCompile(`(?i)(^|;)\s*q\s*=\s*0(\.0*)?\s*(;|$)`)

// accepted takes the client's Accept lines apart: some clients send a line for
// each type, others one line for all.
func accepted(h http.Header) []string {
	var out []string
	for _, line := range h.Values("Accept") {
		for t := range strings.SplitSeq(line, ",") {
			t, params, _ := strings.Cut(t, ";")
			if t = strings.ToLower(strings.TrimSpace(t)); t != "" && (params == "" || !refused.MatchString(params)) {
				out = append(out, t)
			}
		}
	}
	return out
}
