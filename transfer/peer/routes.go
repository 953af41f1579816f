package peer

import (
	"errors"
	"strings"
)

// A route is one thing that can be asked.
type route struct {
	slots  slots            // nil: it is so cheap that it is always answered
	refers bool             // it has parameters
	needs  func(query) bool // whether they name enough; nil: the registry suffices
	answer func(*reply, *call) error
}

// complete reports whether the parameters name all that is needed.
func (r route) complete(q query) bool { return r.needs == nil || r.needs(q) }

// What the parameters of a request have to name.
func repository(q query) bool { return q.Repository != "" }
func tag(q query) bool        { return q.Repository != "" && q.Tag != "" }
func digested(q query) bool   { return q.Repository != "" && q.Digest != "" }
func thing(q query) bool      { return q.Repository != "" && (q.Digest != "" || q.Tag != "") }

// orHeld admits what is offered: an offer names no repository.
func orHeld(q query) bool { return q.Repository != "" || q.Held }

// Limits of what is answered at a time. Who comes beyond is told to come back.
const (
	bulkSlots    = 256  // blobs
	relaySlots   = 128  // what is passed on from a registry
	controlSlots = 1024 // small answers
	listSlots    = 128  // lists, which may be large
	holdingSlots = 2    // all that is held, which is very large
	examineSlots = 4    // examinations, each of which asks others
	certSlots    = 64   // questions about certificates
)

// slots bound how many may do something at a time. nil has no bound.
type slots chan struct{}

// take takes a slot and reports whether one was free.
func (s slots) take() bool {
	if s == nil {
		return true
	}
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// free gives a slot back.
func (s slots) free() {
	if s != nil {
		<-s
	}
}

// routes are all that can be asked, by method and path. A path that ends in / is
// followed by a digest.
type routes map[string]route

// newRoutes returns what a answers.
func newRoutes(a *answers) routes {
	bulk, control, list, out := make(slots, bulkSlots), make(slots, controlSlots), make(slots, listSlots), make(slots, relaySlots)
	examine, r := make(slots, examineSlots), newRelays(a)
	return routes{
		"GET blobs/":          {bulk, true, orHeld, a.heed(a.mineOrHeld(a.getBlob), nil)},
		"HEAD blobs/":         {control, true, orHeld, a.heed(a.mineOrHeld(a.headBlob), a.noPresence)},
		"GET manifests/":      {control, true, repository, a.heed(a.mineOrHeld(a.getManifest), nil)},
		"GET tags":            {control, true, tag, a.heed(a.mine(a.getTag), nil)},
		"GET lists/tags":      {list, true, repository, a.heed(a.mineOrHeld(a.getList), nil)},
		"GET lists/referrers": {list, true, digested, a.heed(a.mineOrHeld(a.getList), nil)},
		"GET progress/":       {nil, true, nil, a.heed(a.getProgress, a.noProgress)},
		"POST offers":         {control, true, nil, a.mine(a.postOffer)},
		"POST refusals":       {control, true, repository, a.postRefusal},
		"GET relay-blobs/":    {out, true, repository, r.open(r.getBlob)},
		"GET relay-heads":     {out, true, thing, r.open(r.getHead)},
		"GET relay-manifests": {out, true, thing, r.open(r.getManifest)},
		"GET relay-tags":      {out, true, repository, r.open(r.getTags)},
		"GET relay-referrers": {out, true, digested, r.open(r.getReferrers)},
		"POST pauses":         {control, true, nil, a.postPause},
		"GET stats":           {control, false, nil, a.getStats},
		"GET holdings":        {make(slots, holdingSlots), false, nil, a.getHoldings},
		"POST orders":         {control, false, nil, a.postOrder},
		"POST examinations":   {examine, false, nil, a.postExamination},
		"POST certificates":   {make(slots, certSlots), false, nil, postCertificates(a.cfg.Certificates)},
		"POST directory":      {control, false, nil, postDirectory(a.cfg.Directory)},
		"GET ping":            {nil, false, nil, a.getPing},
	}
}

// list lists the routes as "METHOD /path".
func (t routes) list() []string {
	var out []string
	for key := range t {
		method, path, _ := strings.Cut(key, " ")
		out = append(out, method+" "+root+path)
	}
	return out
}

var errNoPath = errors.New("no such path")

// understand returns what a call asks for, and reads its parameters.
func (t routes) understand(c *call) (route, error) {
	to, named, ok := t.find(c.Method, c.path)
	if !ok {
		return route{}, errNoPath
	}
	if !to.refers {
		return to, nil
	}
	var err error
	if c.query, err = parseQuery(c.raw); err != nil {
		return route{}, err
	}
	if named != "" {
		if c.Digest, err = parseDigest(named); err != nil {
			return route{}, err
		}
	}
	if !to.complete(c.query) {
		return route{}, errQuery
	}
	return to, nil
}

// find finds what a path behind the root asks for, and the digest in it.
func (t routes) find(method, path string) (to route, named string, ok bool) {
	if dir, last, is := strings.Cut(path, "/"); is && dir != "lists" {
		path, named = dir+"/", last
		if last == "" {
			return to, "", false
		}
	}
	to, ok = t[method+" "+path]
	return to, named, ok
}
