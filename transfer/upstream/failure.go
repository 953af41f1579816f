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

// maxErrorBytes is how much of an error answer's body is read.
const maxErrorBytes = 16 << 10

// maxReason is how many characters of upstream's own words are passed on.
const maxReason = 200

// again says whether a failure is worth another try.
type again int

const (
	never     again = iota
	shortly         // nobody listens: a few tries in a few seconds
	patiently       // it may pass
	once            // the bytes or the link were wrong: at once, and one more time only
)

// A failure is a transfer.Error and whether another try makes sense. It stays
// inside this package: persist returns the transfer.Error.
type failure struct {
	*cause
	again again
}

// A cause is a transfer.Error under a name that leaves its method visible.
type cause = oci.Error

// fail makes a failure of registry r at host.
func (r *registry) fail(kind oci.Kind, again again, host, reason string) *failure {
	return &failure{&oci.Error{Kind: kind, Registry: r.host, Host: host, Reason: reason}, again}
}

// broken says what a round trip without an answer means. The host is the
// proxy's where that failed.
func (r *registry) broken(req *http.Request, t *trip, err error) *failure {
	f := r.fail(oci.Unavailable, patiently, shown(req.URL), "the connection broke")
	f.Err = err
	op, isOp := errors.AsType[*net.OpError](err)
	if refused, ok := errors.AsType[*proxyRefusal](err); ok {
		f.Host, f.Err = shown(t.proxy), nil
		f.byProxy(refused.status)
		return f
	}
	if isOp && t.proxy != nil && (op.Op == "proxyconnect" || strings.HasPrefix(op.Op, "socks")) {
		f.Host = shown(t.proxy)
	}
	if f.ended(req.Context()) || f.unverified(err) || f.unreached(err) {
		return f
	}
	if isOp && strings.HasPrefix(op.Op, "socks") {
		f.By, f.Reason, f.again = oci.Middlebox, "the socks5 proxy refused", shortly
	}
	if _, ok := errors.AsType[textproto.ProtocolError](err); ok {
		f.Reason, f.Err = "the answer is malformed", nil // the cause repeats a header, which may be Location
	}
	return f
}

// byProxy says what a proxy's own status means.
func (f *failure) byProxy(status int) {
	f.Status, f.By = status, oci.Middlebox
	switch {
	case status == http.StatusProxyAuthRequired:
		f.Reason, f.again = "the proxy refused the login (407)", never
	case status >= 500:
		f.Reason = "the proxy can't reach the host"
	default:
		f.Reason, f.again = "the proxy refused to connect", never
	}
}

// ended reports whether the request was ended from our side, and says why.
func (f *failure) ended(ctx context.Context) bool {
	if ctx.Err() == nil {
		return false
	}
	f.again, f.Err = never, context.Cause(ctx)
	f.Reason = "the request was given up"
	if errors.Is(f.Err, errTry) {
		f.again = patiently
	}
	if errors.Is(f.Err, errLate) || errors.Is(f.Err, errTry) || errors.Is(f.Err, context.DeadlineExceeded) {
		f.Kind, f.Reason, f.Err = oci.Timeout, "no answer in time", nil
	}
	return true
}

// unverified reports whether err is of TLS, and says what it means.
func (f *failure) unverified(err error) bool {
	reason := ""
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		reason = "no TLS is spoken there; plain HTTP, perhaps"
	} else if _, ok := errors.AsType[x509.HostnameError](err); ok {
		reason = "the TLS certificate is for another name"
	} else if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		reason = "the TLS certificate has expired or is not valid yet"
	} else if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		reason = "TLS certificate not trusted"
	} else if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "remote error" || op.Op == "local error") {
		reason = "TLS refused" // crypto/tls wraps its alerts so
	}
	if reason == "" {
		return false
	}
	f.Reason, f.again = reason, never
	return true
}

// unreached reports whether err says why no connection came about or lasted,
// and says so.
func (f *failure) unreached(err error) bool {
	no, guarded := errors.AsType[*refusal](err)
	dns, isDNS := errors.AsType[*net.DNSError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	timeout, _ := errors.AsType[net.Error](err)
	switch {
	case guarded:
		f.Kind, f.Reason, f.again, f.Err = oci.Denied, no.reason, never, nil
	case isDNS && dns.IsNotFound:
		f.Reason, f.again = "no such host", shortly
	case isDNS:
		f.Reason = "the host's name can't be looked up"
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Reason, f.again = "connection refused", shortly
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		f.Reason, f.again = "the network does not lead there", shortly
	case timeout != nil && timeout.Timeout():
		f.Kind, f.Reason = oci.Timeout, "no answer in time"
		if isOp && (op.Op == "dial" || op.Op == "proxyconnect") {
			f.Reason, f.again = "no connection in time", shortly
		}
	default:
		return false
	}
	return true
}

// wrong makes the failure of an answer that cannot be used.
func (r *registry) wrong(ans *answer, kind oci.Kind, again again, reason string) *failure {
	f := r.fail(kind, again, ans.host, reason)
	f.Status, f.By = ans.resp.StatusCode, ans.by()
	return f
}

// refused says what an answer that is no success means, and closes it.
func (r *registry) refused(ans *answer) *failure {
	resp, status := ans.resp, ans.resp.StatusCode
	said, speaks := saidBy(resp)
	ans.oci = speaks
	f := r.wrong(ans, oci.Unavailable, never, "unexpected answer")
	switch {
	case status == http.StatusNotFound:
		f.Kind, f.Reason = oci.NotFound, "not found"
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		f.Kind, f.Reason = oci.Denied, "access denied"
	case status == http.StatusProxyAuthRequired:
		f.Reason = "the proxy refused the login (407)"
		if proxy, _ := r.proxyFor(resp.Request.URL); proxy != nil {
			f.Host = shown(proxy)
		}
	case status == http.StatusTooManyRequests:
		f.Kind, f.Reason, f.again = oci.Limited, "too many requests", patiently
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		f.Kind, f.Reason, f.again = oci.Timeout, "no answer in time", patiently
	case status == http.StatusMethodNotAllowed, status == http.StatusNotImplemented:
		f.Kind, f.Reason = oci.Invalid, "not offered"
	case status == http.StatusRequestedRangeNotSatisfiable:
		f.Kind, f.Reason = oci.Invalid, "no such range"
	case status >= 500:
		f.Reason, f.again = "the server is in trouble", patiently
	case status >= 400:
		f.Kind, f.Reason = oci.Invalid, "the request was refused"
	}
	f.RetryAfter = retryAfter(resp.Header, time.Now())
	if said != "" {
		f.Reason += ": " + said
	}
	return f
}

// declined is refused for the end of a request's way. Where a registry has just
// led to a host, that host's no may be to the link, which has ended or is not
// known to it yet: the registry is asked for another.
func (r *registry) declined(ans *answer) *failure {
	f := r.refused(ans)
	if ans.asked != oci.Registry && (f.Status == http.StatusForbidden || f.Status == http.StatusNotFound) {
		f.again = once
	}
	return f
}

// saidBy returns the message of an OCI error answer (OCI distribution 1.1,
// "Error Codes") and whether the answer is one. It closes the answer.
func saidBy(resp *http.Response) (message string, ok bool) {
	defer resp.Body.Close()
	if resp.Body == http.NoBody || resp.Request != nil && resp.Request.Method == http.MethodHead {
		return "", false
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes)) // part of it will do
	if (&answer{resp: resp}).isPage() {
		return "", false
	}
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Errors) == 0 {
		return "", false
	}
	message = printable(cmp.Or(answer.Errors[0].Message, answer.Errors[0].Code))
	return message, message != ""
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

// retryAfter reads Retry-After (RFC 9110, 10.2.3): seconds or a date. 0 where
// it is missing, past or nonsense; at most a day.
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
