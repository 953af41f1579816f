package upstreamtest_test

import (
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// TestShapesAreNotTheRegistrys: whoever else answers does not set the header by
// which the registry shows itself.
func TestShapesAreNotTheRegistrys(t *testing.T) {
	t.Parallel()
	const api = "Docker-Distribution-Api-Version"
	for name, c := range map[string]struct {
		fault  upstreamtest.Fault
		status int
	}{
		"firewall":        {upstreamtest.FirewallPage(), 403},
		"silent firewall": {upstreamtest.FirewallSilent(), 403},
		"portal":          {upstreamtest.PortalPage(), 200},
		"portal, status":  {upstreamtest.PortalStatus(), 511},
		"portal, leading": {upstreamtest.PortalRedirect("http://login.example.com/"), 302},
		"balancer":        {upstreamtest.BalancerPage(), 502},
		"Quay":            {upstreamtest.QuayError(404, "MANIFEST_UNKNOWN"), 404},
		"ECR":             {upstreamtest.ECRError(), 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := upstreamtest.New(t)
			healthy := do(t, client(t, r), "GET", r.URL()+"/v2/")
			healthy.want(t, 200, "{}")
			healthy.wantHeader(t, api, "registry/2.0")
			r.Fault(c.fault)
			a := do(t, client(t, r), "GET", r.URL()+"/v2/")
			a.want(t, c.status, c.fault.Body)
			a.wantHeader(t, api, "")
		})
	}
}

func TestRefusalsOfTheRegistryCarryItsHeader(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{}))
	challenged := do(t, client(t, r), "GET", r.URL()+"/v2/")
	challenged.want(t, 401, "")
	challenged.wantHeader(t, "Docker-Distribution-Api-Version", "registry/2.0")
	r.Fault(upstreamtest.Fault{Status: 403, BeforeAuth: true})
	refused := do(t, client(t, r), "GET", r.URL()+"/v2/")
	refused.want(t, 403, "")
	refused.wantHeader(t, "Docker-Distribution-Api-Version", "registry/2.0")
}
