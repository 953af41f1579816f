package gate

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
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
		h.Set("Content-Security-Policy", misdirectedPolicy)
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

// misdirectedStyle is the page's only style: its policy names the sum of it.
const misdirectedStyle = `:root{color-scheme:light dark}
body{margin:0 auto;padding:2.5rem 1.25rem;max-width:40rem;font:1rem/1.6 system-ui,sans-serif;color:#1d2624;background:#f5f6f4}
h1{font-size:1.4rem;line-height:1.3}h2{font-size:1rem;margin-top:1.8rem}code{overflow-wrap:anywhere}
pre{padding:.9rem 1.1rem;border-radius:10px;background:#172523;color:#dcebe6;white-space:pre-wrap;overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){body{color:#e3eae7;background:#111716}}`

// misdirectedPolicy allows the style and nothing else.
var misdirectedPolicy = func() string {
	sum := sha256.Sum256([]byte(misdirectedStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; sandbox"
}()

// misdirected is the page for people, in English and Chinese.
var misdirected = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>oci-proxy: unknown name</title>
<style>` + misdirectedStyle + `</style>
<h1>This node does not know the name {{.Name}}</h1>
<p>It is an oci-proxy, and it works: pulls through it work under any name.
This page and <code>/_/</code> answer only to names that the node knows, so that no other web site
can read them through your browser.</p>
<p>If the name is right, put it into the node’s config and let the node read it again, by <code>oci-proxy reload</code>:</p>
<pre>base_url: {{.URL}}</pre>
<p>or, if that is set to another name already:</p>
<pre>allowed_hosts: [{{.Name}}]</pre>
<p>The same as variables: <code>OCI_PROXY_BASE_URL={{.URL}}</code>, <code>OCI_PROXY_ALLOWED_HOSTS={{.Name}}</code>.
These need a restart.
The node’s IP address works without any of it.</p>
<section lang="zh-CN">
<h2>此节点不认识名称 {{.Name}}</h2>
<p>oci-proxy 运行正常，用任何名称都能拉取镜像；但网页和 <code>/_/</code> 只对已知的名称作答，以免其他网站经由您的浏览器读取。
如果名称无误，请将上面任一设置写入节点的配置，再执行 <code>oci-proxy reload</code>；也可以直接使用节点的 IP 地址。</p>
</section>
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
