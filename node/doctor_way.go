package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstream"
)

// wayTime bounds the look at the way to a registry. It is shorter than what another member
// allows for it.
const wayTime = 15 * time.Second

// A walk goes to a registry, step by step, until one fails.
type walk struct {
	d      *doctor
	site   config.Registry
	client *upstream.Client
	steps  []step

	mu    sync.Mutex // guards the fields below; never held during I/O
	trips []upstream.Trip
}

// way makes the steps to a registry, and to an image of it.
func (d *doctor) way(ctx context.Context, to aim) []step {
	site, _ := d.registries.cfg().Registry(to.registry)
	w := &walk{d: d, site: site}
	if f := d.barred(site); f.Text != "" {
		w.add("rules", f)
		return w.steps
	}
	client, err := d.quiet()
	if err != nil {
		w.add("config", wrong("%s", err))
		return w.steps
	}
	defer client.Close()
	w.client = client
	ctx, cancel := context.WithTimeout(upstream.Told(ctx, w.hear), wayTime)
	defer cancel()
	if w.greet(ctx) && to.ref.Repository != "" {
		w.image(ctx, to.ref)
	}
	w.mirrors(ctx)
	return w.steps
}

// barred says why this node does not ask a registry, if it does not.
func (d *doctor) barred(site config.Registry) Finding {
	skip := func(why string) Finding { return Finding{Level: Skipped, Text: "not asked: " + why} }
	switch {
	case !d.registries.Asks(site.Host):
		return skip("whitelist_mode is on, and this node does not list it")
	case site.Offline:
		return skip("it is configured as offline")
	case d.registries.cfg().Cluster != nil && !d.registries.cfg().Cluster.Egress:
		return skip("cluster.egress is false, so this node asks by way of the others")
	}
	if r := d.cluster.Router(); r != nil && !slices.Contains(r.Route(site.Host, site.Host), nil) {
		return skip("other members are configured for it, or log in there, and ask it for this node")
	}
	for _, s := range d.upstream.Standings() {
		if s.Host == site.Host && s.State == upstream.Limited {
			return wrong("not asked: it asks to be left alone, for %s now: %s", time.Since(s.Since).Round(time.Second), s.LastError)
		}
	}
	return Finding{}
}

// hear hears of a request.
func (w *walk) hear(t upstream.Trip) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trips = append(w.trips, t)
}

// heard returns the requests since it was last called.
func (w *walk) heard() []upstream.Trip {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.trips
	w.trips = nil
	return all
}

// add adds a step.
func (w *walk) add(what string, f Finding) *step {
	w.steps = append(w.steps, w.d.stepOf(w.site.Host, what, f))
	return &w.steps[len(w.steps)-1]
}

// fine adds a step that took that long and went well.
func (w *walk) fine(what string, took time.Duration, format string, args ...any) {
	w.add(what, fine(format, args...)).TookMS = took.Milliseconds()
}

// fail adds the step that failed, with what to do. It returns false.
func (w *walk) fail(what string, took time.Duration, err error) bool {
	s := w.add(what, wrong("%s", plainly(err, w.site.Host)))
	s.Advice, s.TookMS = advice(what, err, w.site), took.Milliseconds()
	return false
}

// greet makes the steps from the name to the token. It reports whether all went well.
func (w *walk) greet(ctx context.Context) bool {
	g, err := w.client.Greet(ctx, w.site.Host)
	trips := w.heard()
	first := -1 // of the registry's own answers; the last of those before another host is asked
	for i, t := range trips {
		if t.To != oci.Registry || first >= 0 && trips[first].Err == nil {
			break
		}
		first = i
	}
	if first < 0 {
		if err != nil { // nothing was sent
			return w.fail("dns", 0, err)
		}
		return true
	}
	if !w.arrive(trips[first]) {
		return false
	}
	ping, took := trips[first], time.Duration(0)
	for _, t := range trips[first+1:] {
		for _, leg := range t.Took {
			took += leg
		}
	}
	if err != nil && ping.Status != 401 {
		return w.fail("ping", ping.Took[upstream.Answer], err)
	}
	w.fine("ping", ping.Took[upstream.Answer], "/v2/ answers %d", ping.Status)
	if err != nil {
		return w.fail("token", took, err)
	}
	f := greeted(g, took, len(w.site.Logins()) > 0)
	if !g.Asks && f.Level == Fine {
		f.Text = "none is asked for"
	}
	w.add("token", f).TookMS = took.Milliseconds()
	return true
}

// arrive makes the steps until there is a connection. It reports whether there is one.
func (w *walk) arrive(t upstream.Trip) bool {
	failed := func(leg upstream.Leg) bool { return t.Err != nil && t.Leg == leg }
	byProxy := t.Proxy != "" && t.Err != nil && (t.Leg < upstream.Secure || blamed(t.Err) == t.Proxy)
	switch {
	case t.Proxy != "":
		w.fine("dns", 0, "the proxy looks the name up")
	case failed(upstream.LookUp):
		return w.fail("dns", t.Took[upstream.LookUp], t.Err)
	default:
		w.fine("dns", t.Took[upstream.LookUp], "%s", means(t))
	}
	switch {
	case byProxy:
		return w.fail("proxy", t.Took[upstream.LookUp]+t.Took[upstream.Connect], t.Err)
	case t.Proxy != "":
		w.fine("proxy", t.Took[upstream.LookUp]+t.Took[upstream.Connect], "%s connects to %s", t.Proxy, t.Host)
	default:
		w.fine("proxy", 0, "none is set for it")
	}
	switch {
	case failed(upstream.Connect):
		return w.fail("tcp", t.Took[upstream.Connect], t.Err)
	case t.Proxy != "":
		w.fine("tcp", 0, "by the proxy")
	case t.Remote.IsValid():
		w.fine("tcp", t.Took[upstream.Connect], "%s answers", t.Remote.Unmap())
	default:
		w.fine("tcp", t.Took[upstream.Connect], "%s answers", t.Host)
	}
	switch {
	case failed(upstream.Secure):
		return w.fail("tls", t.Took[upstream.Secure], t.Err)
	case t.Plain:
		w.fine("tls", 0, "none: plain HTTP, as insecure allows")
	case t.TLS != "":
		w.secured(t)
	}
	if t.Err != nil {
		return w.fail("ping", t.Took[upstream.Answer], t.Err)
	}
	return true
}

// soonExpired is how long before its end a registry's certificate is told of.
const soonExpired = 14 * 24 * time.Hour

// secured adds the step of TLS.
func (w *walk) secured(t upstream.Trip) {
	f := fine("%s, certificate until %s", t.TLS, t.Expires.UTC().Format(time.DateOnly))
	if time.Until(t.Expires) < soonExpired {
		f.Level = Doubtful
	}
	w.add("tls", f).TookMS = t.Took[upstream.Secure].Milliseconds()
}

// means says what the name of a host means.
func means(t upstream.Trip) string {
	host := strings.Trim(t.Host, "[]")
	if at, err := netip.ParseAddrPort(t.Host); err == nil {
		host = at.Addr().String()
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return t.Host + " is an address"
	}
	if len(t.Addresses) == 0 {
		return t.Host + " was looked up"
	}
	text := t.Host + " is " + t.Addresses[0].Unmap().String()
	if more := len(t.Addresses) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// mirrors looks at the mirrors of the registry.
func (w *walk) mirrors(ctx context.Context) {
	for _, m := range w.site.Mirrors {
		site, _ := w.d.registries.cfg().Registry(m.Host)
		began := time.Now()
		f := lookAtRegistry(ctx, site, w.client)
		f.Text = m.Host + ": " + f.Text
		w.add("mirror", f).TookMS = time.Since(began).Milliseconds()
	}
	w.heard()
}

// blamed is the host that an error of the upstream client is about, "" if it is about none.
func blamed(err error) string {
	if e, ok := oci.AsError(err); ok {
		return e.Host
	}
	return ""
}
