package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"oci-proxy/transfer/oci"
)

// maxErrorBytes is how much of the body of an error is read.
const maxErrorBytes = 16 << 10

// maxReason is how many characters of upstream's own message are passed on.
const maxReason = 200

// maxCause is how many bytes of the text of a broken answer's cause are kept for the log.
const maxCause = 512

// again says whether another try makes sense after a failure.
type again int

const (
	never     again = iota
	shortly         // nothing listens: a few tries within a few seconds
	patiently       // it may pass
	once            // the bytes or the link were wrong: one more time, at once
)

// A failure is an oci.Error with whether another try makes sense. It stays inside
// this package: persist returns the oci.Error.
type failure struct {
	*cause
	again again
	login bool          // the token server refused a request with a login
	held  bool          // nothing was sent, since the host had asked to wait
	page  bool          // the answer was a page for people
	age   time.Duration // for how long there has been no connection to that place, 0 if there is
}

// A cause is an oci.Error under another name. Embedded under its own, it would hide
// its method Error.
type cause = oci.Error

// broken returns the failure of a round trip that err ended without an answer. It
// names the proxy's host if the proxy failed.
func broken(home *home, req *http.Request, t *trip, err error) *failure {
	f := home.fail(oci.Unavailable, patiently, shown(req.URL), "the connection broke")
	f.Err = err
	op, isOp := errors.AsType[*net.OpError](err)
	if refused, ok := errors.AsType[*proxyRefusal](err); ok {
		f.Host, f.Err = shown(t.proxy), nil
		f.byProxy(refused.status)
		return f
	}
	late, isLate := errors.AsType[*lateError](err)
	if t.proxy != nil && (isOp && (op.Op == "proxyconnect" || strings.HasPrefix(op.Op, "socks")) || isLate && late.step != securing) {
		f.Host = shown(t.proxy)
	}
	if f.ended(req.Context()) || f.unverified(err) {
		return f
	}
	if f.unreached(err) {
		f.Unreached = !t.connected
		f.veil(home, err)
		return f
	}
	if isOp && strings.HasPrefix(op.Op, "socks") {
		f.By, f.Reason, f.again, f.Unreached = oci.Middlebox, "the socks5 proxy refused the connection", shortly, true
	}
	if _, ok := errors.AsType[textproto.ProtocolError](err); ok {
		f.Reason, f.Err = "the answer is malformed", nil // the cause quotes a header, which may be Location
	}
	if s := err.Error(); len(s) > maxCause { // net/http quotes a line that it can't read, however long it is
		f.Err = errors.New(printable(s[:maxCause]) + "…")
	}
	return f
}

// byProxy fills in what the proxy's answer to CONNECT means.
func (f *failure) byProxy(status int) {
	f.Status, f.By = status, oci.Middlebox
	switch {
	case status == http.StatusProxyAuthRequired:
		f.Reason, f.again = wrongProxyLogin, never
	case status >= 500:
		f.Reason, f.again, f.Unreached = "the proxy can't reach the host", shortly, true
	default:
		f.Reason, f.again = "the proxy refused to connect to the host", never
	}
}

// wrongProxyLogin is the reason of a 407.
const wrongProxyLogin = "the proxy refused the login (407): check user and password in upstream_proxy or HTTPS_PROXY"

// ended reports whether our side ended the request. If so, it fills in why.
func (f *failure) ended(ctx context.Context) bool {
	if ctx.Err() == nil {
		return false
	}
	f.again, f.Err = never, context.Cause(ctx)
	f.Reason = "the request was cancelled"
	if errors.Is(f.Err, errTry) {
		f.again = patiently
	}
	if errors.Is(f.Err, errLate) || errors.Is(f.Err, errTry) || errors.Is(f.Err, context.DeadlineExceeded) {
		f.Kind, f.Reason, f.Err = oci.Timeout, "no answer in time", nil
	}
	return true
}

// unverified reports whether TLS failed. If so, it fills in why.
func (f *failure) unverified(err error) bool {
	reason := ""
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		reason = "the host does not speak TLS: if it speaks plain HTTP, set insecure for this registry"
	} else if _, ok := errors.AsType[x509.HostnameError](err); ok {
		reason = "the TLS certificate is for another name"
	} else if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		reason = "the TLS certificate has expired or is not valid yet"
	} else if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		reason = "the TLS certificate is not trusted: if it is from a private authority, set ca_file for this registry"
	} else if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "remote error" || op.Op == "local error") {
		reason = "the TLS handshake failed" // the form in which crypto/tls returns an alert
	}
	if reason == "" {
		return false
	}
	f.Reason, f.again = reason, never
	return true
}

// noPublicAddress is what clients hear where the name of a host that nobody configured
// does not lead to a public address. Whether there is such a name, and where it leads,
// is for operators: others could make a map of the network inside.
const noPublicAddress = "no public address is known for the host, and a registry that is not configured is contacted at public addresses only"

// veil hides what the names of hosts that nobody configured mean.
func (f *failure) veil(home *home, err error) {
	_, dns := errors.AsType[*net.DNSError](err)
	no, guarded := errors.AsType[*refusal](err)
	if !home.stranger || !dns && !(guarded && no.address.IsValid()) {
		return
	}
	if f.Inside == "" {
		f.Inside = f.Reason
	}
	f.Kind, f.Reason, f.again = oci.Unavailable, noPublicAddress, shortly
}

// unreached reports whether err tells why there is no connection. If so, it fills
// that in.
func (f *failure) unreached(err error) bool {
	no, guarded := errors.AsType[*refusal](err)
	dns, isDNS := errors.AsType[*net.DNSError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	timeout, _ := errors.AsType[net.Error](err)
	late, isLate := errors.AsType[*lateError](err)
	switch {
	case guarded && !no.address.IsValid():
		f.Kind, f.Reason, f.again, f.Err = oci.Denied, no.reason, never, nil
	case guarded:
		f.Reason, f.again, f.Err = no.reason, shortly, nil
		f.Inside = no.Error()
	case isDNS && dns.IsNotFound:
		f.Reason, f.again = "no such host", shortly
	case isDNS && dns.IsTimeout, isLate && late.step == lookingUp:
		f.Reason, f.again = "the host's name can't be looked up: the resolver does not answer", shortly
	case isDNS:
		f.Reason, f.again = "the host's name can't be looked up", shortly
	case isLate && late.step == securing:
		f.Kind, f.Reason, f.again = oci.Timeout, "no TLS handshake in time", shortly
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Reason, f.again = "connection refused", shortly
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		f.Reason, f.again = "there is no route to the host", shortly
	case timeout != nil && timeout.Timeout():
		f.Kind, f.Reason = oci.Timeout, "no answer in time"
		if isLate || isOp && (op.Op == "dial" || op.Op == "proxyconnect") {
			f.Reason, f.again = "no connection in time", shortly
		}
	default:
		return false
	}
	return true
}

// wrong returns the failure of an answer that can't be used.
func (a *answer) wrong(kind oci.Kind, again again, reason string) *failure {
	f := a.home.fail(kind, again, a.host(), reason)
	f.Status, f.By = a.resp.StatusCode, a.by()
	return f
}

// tooLarge is the failure of an answer over its limit.
func (a *answer) tooLarge() *failure {
	return a.wrong(oci.Unavailable, never, "the answer is too large")
}

// refused returns the failure of an answer that is no success, and closes it.
func (a *answer) refused() *failure {
	said := a.hear()
	v := judge(a)
	f := a.wrong(v.kind, v.again, v.reason)
	f.page = a.isPage()
	if proxy := tripOf(a.resp.Request.Context()).proxy; a.is(http.StatusProxyAuthRequired) && proxy != nil {
		f.Host = shown(proxy)
	}
	f.RetryAfter = retryAfter(a.resp.Header, time.Now())
	if said != "" {
		f.Reason += ": " + said
	}
	return f
}

// hear reads an answer that is no success to its end and closes it. It returns what
// a registry says in it to people, and remembers whether it has a registry's form.
func (a *answer) hear() string {
	if !a.heard {
		a.said, a.oci = saidBy(a.resp)
		a.heard = true
	}
	return a.said
}

// saidBy returns the message of an OCI error answer (OCI distribution 1.1,
// "Error Codes") and whether the answer is one: other APIs have errors in that form, but
// without a code, or with a number for one. It closes the answer.
func saidBy(resp *http.Response) (message string, ok bool) {
	defer resp.Body.Close()
	if resp.Body == http.NoBody || resp.Request != nil && resp.Request.Method == http.MethodHead {
		return "", false
	}
	limit := endsIn(errorTime, resp.Body)
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes)) // after an error the part that came will do
	limit.Stop()
	if (&answer{resp: resp}).isPage() {
		return "", false
	}
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Errors) == 0 {
		return "", false
	}
	code := printable(answer.Errors[0].Code)
	return cmp.Or(printable(answer.Errors[0].Message), code), code != ""
}

// printable returns s as one line of at most maxReason printable characters.
func printable(s string) string {
	var b strings.Builder
	n := 0
	for _, c := range s {
		if n == maxReason {
			break
		}
		if !unicode.IsPrint(c) {
			c = ' '
		}
		b.WriteRune(c)
		n++
	}
	return strings.TrimSpace(b.String())
}

// retryAfter reads Retry-After (RFC 9110, 10.2.3): seconds or a date. It is 0 if
// that is missing, past or malformed, and at most a day.
func retryAfter(h http.Header, now time.Time) time.Duration {
	const day = 24 * time.Hour
	v := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseUint(v, 10, 32); err == nil {
		return min(time.Duration(s)*time.Second, day)
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(at.Sub(now), 0), day)
	}
	return 0
}
