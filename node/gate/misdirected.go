package gate

import (
	"bytes"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"strings"

	"oci-proxy/node/reply"
)

// unknownName is what everybody is told who calls this node by an unknown name.
const unknownName = "this node does not answer to the name in the Host header: add the name to allowed_hosts, or set base_url"

// refuseHost answers a client that calls this node by an unknown name: a browser by
// a page, Prometheus by text and everybody else by an OCI error.
func refuseHost(w http.ResponseWriter, r *http.Request) {
	accept := strings.ToLower(strings.Join(r.Header.Values("Accept"), ","))
	h := w.Header()
	switch {
	case strings.Contains(accept, "text/html"):
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusMisdirectedRequest)
		_, _ = w.Write(misdirectedPage(r)) // the client may be gone
	case strings.Contains(accept, "text/plain"), strings.Contains(accept, "openmetrics"):
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusMisdirectedRequest)
		_, _ = fmt.Fprintln(w, unknownName)
	default:
		reply.Fail(w, http.StatusMisdirectedRequest, reply.Error{Code: "DENIED", Message: unknownName})
	}
}

// misdirected is the page for people.
var misdirected = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>oci-proxy: unknown name</title>
<h1>This node does not know the name {{.Name}}</h1>
<p>It is an oci-proxy, and it works: pulls through it work under any name.
This page and <code>/_/</code> answer only to names that the node knows, so that no other web site
can read them through your browser.</p>
<p>If the name is right, put it into the node's config and restart the node:</p>
<pre>base_url: {{.URL}}</pre>
<p>or, if that is set to another name already:</p>
<pre>allowed_hosts: [{{.Name}}]</pre>
<p>The same as variables: <code>OCI_PROXY_BASE_URL={{.URL}}</code>, <code>OCI_PROXY_ALLOWED_HOSTS={{.Name}}</code>.
The node's IP address works without.</p>
</html>
`))

// misdirectedPage is the page for the name that r was sent to. It shows only what
// can be a name.
func misdirectedPage(r *http.Request) []byte {
	name, port, err := net.SplitHostPort(strings.ToLower(r.Host))
	if err != nil {
		name, port = strings.ToLower(r.Host), ""
	}
	if !nameLike(name) || len(name) > 253 {
		name, port = "NAME", ""
	}
	url := "http://" + name
	if r.TLS != nil {
		url = "https://" + name
	}
	if port != "" && len(port) <= 5 && strings.Trim(port, "0123456789") == "" {
		url += ":" + port
	}
	var page bytes.Buffer
	if err := misdirected.Execute(&page, struct{ Name, URL string }{name, url}); err != nil {
		return []byte(unknownName) // strings always fit
	}
	return page.Bytes()
}
