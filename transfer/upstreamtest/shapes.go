package upstreamtest

import "net/http"

// The faults below are answers that real servers have given, header and body.
// Set their Match, Times and Skip as for any Fault.

// page is the media type of a page for people.
const page = "text/html; charset=utf-8"

// shape returns the fault that answers so, without what would mark the answer as
// one of the registry.
func shape(status int, mediaType, body string) Fault {
	return Fault{
		Status: status, Body: body,
		Header: http.Header{"Docker-Distribution-Api-Version": nil, "Content-Type": {mediaType}},
	}
}

// onCDN makes f a fault of the CDN.
func onCDN(f Fault) Fault {
	f.Server = serverCDN
	return f
}

// S3Expired is how S3 refuses a link that has expired.
func S3Expired() Fault {
	return onCDN(shape(http.StatusForbidden, "application/xml",
		`<?xml version="1.0" encoding="UTF-8"?>`+"\n"+`<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>`))
}

// S3Skewed is how S3 refuses a link of a registry whose clock is wrong.
func S3Skewed() Fault {
	return onCDN(shape(http.StatusForbidden, "application/xml",
		`<?xml version="1.0" encoding="UTF-8"?>`+"\n"+`<Error><Code>RequestTimeTooSkewed</Code></Error>`))
}

// CloudFrontBlocked is how CloudFront refuses a country.
func CloudFrontBlocked() Fault {
	return onCDN(shape(http.StatusForbidden, "text/html",
		`<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01 Transitional//EN"><HTML><BODY><H1>403 ERROR</H1>The request could not be satisfied.</BODY></HTML>`))
}

// AzureExpired is how Azure's blob storage refuses a link that has expired.
func AzureExpired() Fault {
	return onCDN(shape(http.StatusForbidden, "application/xml",
		"\ufeff"+`<?xml version="1.0" encoding="utf-8"?><Error><Code>AuthenticationFailed</Code></Error>`))
}

// S3Missing is how S3 says that it has no such object.
func S3Missing() Fault {
	return onCDN(shape(http.StatusNotFound, "application/xml", `<Error><Code>NoSuchKey</Code></Error>`))
}

// FirewallPage is a firewall's or an address filter's refusal in front of the
// registry, such as Cloud Armor's in front of registry.k8s.io.
func FirewallPage() Fault {
	return shape(http.StatusForbidden, page, "<html><head><title>403 Forbidden</title></head><body><h1>Error: Forbidden</h1></body></html>")
}

// FirewallSilent is a refusal with nothing in it, as an address filter in front
// of GitLab gives it.
func FirewallSilent() Fault {
	f := shape(http.StatusForbidden, "", "")
	f.Header["Content-Type"] = nil
	return f
}

// PortalPage is the page by which a network that wants a login first answers
// every request.
func PortalPage() Fault {
	return shape(http.StatusOK, page, "<html><body>Please log in to the network</body></html>")
}

// PortalRedirect is a network's redirect to its login page.
func PortalRedirect(to string) Fault {
	f := shape(http.StatusFound, page, "<a href=\"/login\">Found</a>")
	f.Header["Location"] = []string{to}
	return f
}

// PortalStatus is the status that RFC 6585 has for such a network.
func PortalStatus() Fault {
	return shape(http.StatusNetworkAuthenticationRequired, page, "<html><body>Please log in to the network</body></html>")
}

// BalancerPage is a balancer's answer while no server stands behind it.
func BalancerPage() Fault {
	return shape(http.StatusBadGateway, "text/html", "<html><center><h1>502 Bad Gateway</h1></center><hr><center>nginx</center></html>")
}

// QuayError is an error as Quay gives it: JSON, without the API's header.
func QuayError(status int, code string) Fault {
	return shape(status, "application/json", `{"errors":[{"code":"`+code+`","detail":{},"message":"refused"}]}`)
}

// ECRError is a 401 as ECR gives it: plain text with a challenge.
func ECRError() Fault {
	f := shape(http.StatusUnauthorized, "text/plain; charset=utf-8", "Not Authorized")
	f.Header["Www-Authenticate"] = []string{`Basic realm="https://ecr.example.com/",service="ecr.amazonaws.com"`}
	return f
}

// NexusNoHead is how early Nexus answers HEAD for a manifest that it has.
func NexusNoHead() Fault {
	f := shape(http.StatusNotFound, "text/html", "<html><body>404</body></html>")
	f.Method = http.MethodHead
	return f
}
