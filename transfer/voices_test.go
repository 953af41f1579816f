package transfer_test

import (
	"fmt"
	"net/http"

	"oci-proxy/transfer/upstreamtest"
)

// A voice is one way in which requests go wrong.
type voice struct {
	upstreamtest.Fault
	options []upstreamtest.Option
}

const (
	htmlType = "text/html; charset=utf-8"
	htmlBody = "<!DOCTYPE html><html><body>no</body></html>"
	jsonType = "application/json"
	xmlType  = "application/xml"
	ociError = `{"errors":[{"code":"DENIED","message":"as it says"}]}`
)

// says is an answer without anything that marks it as a registry's. header holds names
// and values in turn.
func says(status int, mediaType, body string, header ...string) upstreamtest.Fault {
	f := upstreamtest.Fault{
		Status: status, Body: body, BeforeAuth: true,
		Header: http.Header{"Docker-Distribution-Api-Version": nil, "Content-Type": {mediaType}, "Retry-After": {"60"}},
	}
	if mediaType == "" {
		f.Header["Content-Type"] = nil
	}
	for i := 0; i < len(header); i += 2 {
		f.Header.Set(header[i], header[i+1])
	}
	return f
}

// middleboxes are answers to every request at the registry that something on the way gave.
func middleboxes() map[string]voice {
	all := map[string]voice{
		"200, a page":                           {Fault: says(200, htmlType, htmlBody)},
		"200, a page of a manifest's type":      {Fault: says(200, upstreamtest.TypeManifest, htmlBody)},
		"200, a page without a type":            {Fault: says(200, "", htmlBody)},
		"200, nothing":                          {Fault: says(200, "", "")},
		"200, nothing, of a manifest's type":    {Fault: says(200, upstreamtest.TypeManifest, "")},
		"200, text":                             {Fault: says(200, "text/plain", "ok")},
		"200, an empty object":                  {Fault: says(200, jsonType, "{}")},
		"200, an array":                         {Fault: says(200, jsonType, "[]")},
		"200, an array of a manifest's type":    {Fault: says(200, upstreamtest.TypeManifest, `[{"schemaVersion":2}]`)},
		"200, null":                             {Fault: says(200, jsonType, "null")},
		"200, an error":                         {Fault: says(200, jsonType, ociError)},
		"200, an error of a manifest's type":    {Fault: says(200, upstreamtest.TypeManifest, ociError)},
		"200, a token":                          {Fault: says(200, jsonType, `{"token":"t","access_token":"t","expires_in":300}`)},
		"200, a manifest cut short":             {Fault: says(200, upstreamtest.TypeManifest, `{"schemaVersion":2,"mediaType":"`+upstreamtest.TypeManifest+`","config":{"digest":`)},
		"200, a list cut short":                 {Fault: says(200, jsonType, `{"name":"team/app","tags":["a","`)},
		"200, an object with a name":            {Fault: says(200, jsonType, `{"name":"Blocked","message":"by policy"}`)},
		"200, an object with a version":         {Fault: says(200, upstreamtest.TypeIndex, `{"schemaVersion":2,"message":"by policy"}`)},
		"200, packed":                           {Fault: says(200, htmlType, "\x1f\x8b\x08", "Content-Encoding", "gzip")},
		"200, packed, and no word of it":        {Fault: says(200, upstreamtest.TypeManifest, "\x1f\x8b\x08\x00\x00")},
		"203, a page":                           {Fault: says(203, htmlType, htmlBody)},
		"204":                                   {Fault: says(204, "", "")},
		"206":                                   {Fault: says(206, jsonType, "{}", "Content-Range", "bytes 0-1/2")},
		"302 to a portal":                       {Fault: says(302, htmlType, "", "Location", "http://portal.invalid/login")},
		"302 to a portal, by TLS":               {Fault: says(302, htmlType, "", "Location", "https://portal.invalid/login")},
		"302 to a portal inside":                {Fault: says(302, htmlType, "", "Location", "http://192.0.2.1/login")},
		"302 to a portal inside, by TLS":        {Fault: says(302, htmlType, "", "Location", "https://10.255.255.1/login")},
		"302 to a name inside":                  {Fault: says(302, htmlType, "", "Location", "https://portal/login")},
		"302 to a cloud's metadata":             {Fault: says(302, htmlType, "", "Location", "http://169.254.169.254/latest")},
		"302 to another port":                   {Fault: says(302, htmlType, "", "Location", "http://127.0.0.1:1/login")},
		"302 to nowhere":                        {Fault: says(302, htmlType, "")},
		"302 to what is no web server":          {Fault: says(302, htmlType, "", "Location", "ftp://portal.invalid/")},
		"302 in a circle":                       {Fault: says(302, htmlType, "", "Location", "/v2/")},
		"401, a page":                           {Fault: says(401, htmlType, htmlBody)},
		"401, a scheme of a firewall":           {Fault: says(401, htmlType, htmlBody, "WWW-Authenticate", "Negotiate")},
		"407":                                   {Fault: says(407, htmlType, htmlBody, "Proxy-Authenticate", "Basic realm=proxy")},
		"429, a page":                           {Fault: says(429, htmlType, htmlBody)},
		"502, a page":                           {Fault: says(502, htmlType, htmlBody)},
		"503, nothing":                          {Fault: says(503, "", "")},
		"504, text":                             {Fault: says(504, "text/plain", "upstream request timeout")},
		"511":                                   {Fault: says(511, htmlType, htmlBody)},
		"520, a page":                           {Fault: says(520, htmlType, htmlBody)},
		"the connection breaks":                 {Fault: upstreamtest.Fault{CutAtStart: true, BeforeAuth: true}},
		"no HTTP":                               {Fault: upstreamtest.Fault{Wrap: noHTTP, BeforeAuth: true}},
		"403 that only looks like a registry's": {Fault: says(403, jsonType, `{"errors":[{"message":"blocked"}],"data":null}`)},
		"404 of another API":                    {Fault: says(404, jsonType, `{"success":false,"errors":[{"code":7003,"message":"no route"}]}`)},
		"403, an OCI error on a page":           {Fault: says(403, htmlType, ociError)},
		"404, an OCI error, packed":             {Fault: says(404, jsonType, "\x1f\x8b\x08\x00", "Content-Encoding", "gzip")},
	}
	for _, status := range []int{400, 402, 403, 404, 405, 406, 410, 412, 418, 451, 499, 501} {
		for name, f := range map[string]upstreamtest.Fault{
			"a page": says(status, htmlType, htmlBody), "text": says(status, "text/plain; charset=utf-8", "404 page not found\n"),
			"JSON": says(status, jsonType, `{"message":"no Route matched with those values"}`), "nothing": says(status, "", ""),
		} {
			all[fmt.Sprintf("%d, %s", status, name)] = voice{Fault: f}
		}
	}
	return all
}

// noHTTP answers with what is none.
func noHTTP(w http.ResponseWriter, _ *http.Request) bool {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_, _ = conn.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n"))
		_ = conn.Close()
	}
	return true
}

// storages are answers of storage that a registry's redirect leads to.
func storages() map[string]voice {
	all := map[string]voice{
		"storage: 200, a page":     {Fault: says(200, htmlType, htmlBody)},
		"storage: 200, nothing":    {Fault: says(200, "", "")},
		"storage: 200, else":       {Fault: says(200, upstreamtest.TypeManifest, `{"schemaVersion":2,"manifests":[]}`)},
		"storage: an OCI error":    {Fault: says(403, jsonType, ociError)},
		"storage: 302 in a circle": {Fault: says(302, "", "", "Location", "/")},
		"storage: it breaks":       {Fault: upstreamtest.Fault{CutAtStart: true}},
	}
	for _, status := range []int{400, 401, 403, 404, 410, 416, 429, 451, 500, 503} {
		all[fmt.Sprintf("storage: %d", status)] = voice{Fault: says(status, xmlType, `<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>`)}
	}
	for name, v := range all {
		v.options = []upstreamtest.Option{upstreamtest.Redirect(), upstreamtest.RedirectManifests()}
		v.Server, v.BeforeAuth = "cdn", false
		all[name] = v
	}
	return all
}

// tokenServers are answers of a token server, or what stands before it, that are no
// refusal of the login.
func tokenServers() map[string]voice {
	all := map[string]voice{
		"token: 200, a page":            {Fault: says(200, htmlType, htmlBody)},
		"token: 200, nothing":           {Fault: says(200, "", "")},
		"token: 200, an empty token":    {Fault: says(200, jsonType, `{"token":""}`)},
		"token: 200, no token":          {Fault: says(200, jsonType, `{}`)},
		"token: 200, an error":          {Fault: says(200, jsonType, ociError)},
		"token: 200, packed":            {Fault: says(200, jsonType, "\x1f\x8b", "Content-Encoding", "gzip")},
		"token: 204":                    {Fault: says(204, "", "")},
		"token: 302 to a login page":    {Fault: says(302, htmlType, "", "Location", "https://sso.invalid/login")},
		"token: 302 in a circle":        {Fault: says(302, htmlType, "", "Location", "/Token-Service/auth")},
		"token: 302 to inside":          {Fault: says(302, htmlType, "", "Location", "https://10.255.255.1/login")},
		"token: 302 to nowhere":         {Fault: says(302, htmlType, "")},
		"token: 401, a page":            {Fault: says(401, htmlType, htmlBody)},
		"token: 403, text":              {Fault: says(403, "text/plain", "blocked")},
		"token: 403, nothing":           {Fault: says(403, "", "")},
		"token: 404, JSON":              {Fault: says(404, jsonType, `{"error":"not_found"}`)},
		"token: 404, an OCI error":      {Fault: says(404, jsonType, ociError)},
		"token: 400, JSON":              {Fault: says(400, jsonType, `{"error":"invalid_request"}`)},
		"token: 405":                    {Fault: says(405, jsonType, `{}`)},
		"token: 429":                    {Fault: says(429, jsonType, `{}`)},
		"token: 500":                    {Fault: says(500, jsonType, `{}`)},
		"token: 503, a page":            {Fault: says(503, htmlType, htmlBody)},
		"token: the connection breaks":  {Fault: upstreamtest.Fault{CutAtStart: true, BeforeAuth: true}},
		"token: it speaks another tune": {Fault: upstreamtest.Fault{Wrap: noHTTP, BeforeAuth: true}},
	}
	for name, v := range all {
		v.options = []upstreamtest.Option{upstreamtest.Bearer(upstreamtest.BearerAuth{Anonymous: true})}
		v.Server = "token"
		all[name] = v
	}
	return all
}

// words are refusals that the registry itself, or its token server, gave.
func words() map[string]voice {
	const api = "Docker-Distribution-Api-Version"
	all := map[string]voice{
		"token: 401, JSON":        {Fault: says(401, jsonType, `{"details":"incorrect username or password"}`)},
		"token: 401, a challenge": {Fault: says(401, "text/plain", "Auth failed.", "WWW-Authenticate", `Basic realm="x"`)},
		"token: 403, OCI error":   {Fault: says(403, "text/plain", ociError)},
		"token: 403, its header":  {Fault: says(403, "", "", api, "registry/2.0")},
	}
	for name, v := range all {
		v.options = []upstreamtest.Option{upstreamtest.Bearer(upstreamtest.BearerAuth{Anonymous: true})}
		v.Server = "token"
		all[name] = v
	}
	for _, status := range []int{401, 403, 404, 410, 451} {
		for name, f := range map[string]upstreamtest.Fault{
			"its header":              says(status, "", "", api, "registry/2.0"),
			"its header, and text":    says(status, "text/plain; charset=utf-8", "404 page not found\n", api, "registry/2.0"),
			"an OCI error":            says(status, jsonType, `{"errors":[{"code":"NAME_UNKNOWN","message":"as it says"}]}`),
			"an OCI error as text":    says(status, "text/plain", `{"errors":[{"code":"DENIED"}]}`),
			"an OCI error and detail": says(status, "application/json; charset=utf-8", "\n"+`{"errors":[{"code":"UNAUTHORIZED","message":"no","detail":[{"Type":"repository"}]}],"more":1}`),
			"a challenge":             says(status, htmlType, htmlBody, "WWW-Authenticate", `Basic realm="x"`),
		} {
			all[fmt.Sprintf("%d, %s", status, name)] = voice{Fault: f}
		}
	}
	return all
}
