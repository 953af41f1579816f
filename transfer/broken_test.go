package transfer_test

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"testing"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// get matches GETs of blobs at the registry, but not at the CDN.
var get = upstreamtest.Match{Method: "GET", PathPart: "/blobs/", Server: "registry"}

func TestABrokenDownloadIsTakenUpAgainUnseen(t *testing.T) {
	t.Parallel()
	const size = 2 * mib
	cdn := upstreamtest.Match{Method: "GET", Server: "cdn"}
	tests := map[string]struct {
		faults []upstreamtest.Fault
		stall  time.Duration
		gets   int // at the registry
		size   int64
	}{
		"cut after a part":                  {faults: []upstreamtest.Fault{{Match: cdn, CutAfter: mib + 1, Times: 1}}, gets: 2},
		"cut after one byte":                {faults: []upstreamtest.Fault{{Match: cdn, CutAfter: 1, Times: 1}}, gets: 2},
		"cut before the last byte":          {faults: []upstreamtest.Fault{{Match: cdn, CutAfter: size - 1, Times: 1}}, gets: 2},
		"reset after a part":                {faults: []upstreamtest.Fault{{Match: cdn, CutAfter: mib, CutReset: true, Times: 1}}, gets: 2},
		"cut ten times, with progress":      {faults: []upstreamtest.Fault{{Match: cdn, CutAfter: 100 * kib, Times: 10}}, gets: 11},
		"stalled":                           {faults: []upstreamtest.Fault{{Match: cdn, Stall: true, StallAfter: mib, Times: 1}}, stall: 2 * time.Second, gets: 2},
		"stalled behind the header":         {faults: []upstreamtest.Fault{{Match: cdn, Stall: true, Times: 1}}, stall: 2 * time.Second, gets: 2},
		"cut, and Range is ignored":         {faults: []upstreamtest.Fault{{Match: cdn, CutAfter: mib, Times: 1}, {Match: cdn, IgnoreRange: true}}, gets: 2},
		"cut, then a wrong range":           {faults: []upstreamtest.Fault{{Match: cdn, CutAfter: mib, Times: 1}, {Match: cdn, WrongRange: true, Times: 1}}, gets: 3},
		"cut, then another size":            {faults: []upstreamtest.Fault{{Match: cdn, CutAfter: mib, Times: 1}, {Match: cdn, Header: http.Header{"Content-Range": {"bytes " + strconv.Itoa(mib) + "-1999999/2000000"}}, Times: 1}}, gets: 3},
		"cut, then the CDN's link has gone": {faults: []upstreamtest.Fault{{Match: cdn, CutAfter: mib, Times: 1}, {Match: cdn, Status: http.StatusForbidden, Times: 1}}, gets: 3},
		"a small blob cut":                  {faults: []upstreamtest.Fault{{Match: cdn, CutAfter: 10, Times: 1}}, gets: 2, size: 1000},
		"of unknown size, cut":              {faults: []upstreamtest.Fault{{Match: cdn, CutAfter: mib, NoLength: true, Times: 1}}, gets: 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{options: []upstreamtest.Option{upstreamtest.Redirect()}, stall: test.stall})
			if test.size == 0 {
				test.size = size
			}
			d, content := r.put(7, test.size)
			for _, f := range test.faults {
				r.registry.Fault(f)
			}
			each(3, func(i int) {
				off := int64(i) * test.size / 3
				if k, _, err := r.pull(r.ref(d), content, off, -1); err != nil {
					t.Errorf("from %d: %d bytes, error %v", off, k, err)
				}
			})
			r.wantGets(d, test.gets)
			r.events.await(filled, 1)
			r.mustPull(r.ref(d), content, oci.Hit)
			r.wantFreshLinks()
			if cut := test.faults[0].CutAfter; cut > 0 && !test.faults[0].CutReset && r.ranges(d)[2] != r.ranges(d)[3] {
				t.Errorf("registry and CDN were asked for different ranges: %q", r.ranges(d))
			}
		})
	}
}

// wantFreshLinks fails the test if a link to the CDN was used twice.
func (r *rig) wantFreshLinks() {
	r.t.Helper()
	asked, used := 0, 0
	for _, q := range r.registry.Requests() {
		switch q.Server {
		case "registry":
			asked++
		case "cdn":
			used++
		}
	}
	if used > asked {
		r.t.Errorf("%d requests at the CDN, but only %d links were asked for", used, asked)
	}
}

func TestResumingBeginsAtTheByteReached(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	d, content := r.put(7, mib)
	r.registry.Fault(upstreamtest.Fault{CutAfter: 700_001, Times: 1})
	r.mustPull(r.ref(d), content, oci.Miss)
	if got := r.ranges(d); len(got) != 2 || got[0] != "" || got[1] != "bytes=700001-" {
		t.Errorf("upstream was asked for %q", got)
	}
	if n := r.registry.BytesSent(); n != mib {
		t.Errorf("upstream sent %d bytes for %d", n, mib)
	}
}

func TestWhatTheRegistryTellsWronglyIsCut(t *testing.T) {
	t.Parallel()
	const size = mib
	tests := map[string]upstreamtest.Fault{
		"the length is told too long":          {LieLength: 1000},
		"the length is told too short":         {LieLength: -1000},
		"compressed on the way":                {Gzip: true},
		"compressed on the way, length untold": {Gzip: true, NoLength: true},
	}
	for name, fault := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			d, content := r.put(8, size)
			fault.Match = get
			r.registry.Fault(fault)
			k, _, err := r.pull(r.ref(d), content, 0, -1)
			if err == nil || k > size+1000-cache.HoldBack {
				t.Errorf("got %d bytes, error %v", k, err)
			}
			if errors.Is(err, errWrong) && !fault.Gzip {
				t.Errorf("error %v", err)
			}
			if fault.Gzip { // the client left before the end
				r.events.await(notFilled, r.gets(d))
			}
			if n := r.gets(d); n > 4 {
				t.Errorf("%d GETs", n)
			}
			r.registry.ClearFaults()
			r.mustPull(r.ref(d), content, oci.Miss)
		})
	}
}

func TestNobodyCompletesAWrongBlob(t *testing.T) {
	t.Parallel()
	const size = 5 * mib // so large that bytes are sent before the digest is known
	for name, at := range map[string]int64{"first byte": 0, "in the middle": size / 2, "held back": size - 1000, "last byte": size - 1} {
		for _, untold := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", size untold"}[untold], func(t *testing.T) {
				t.Parallel()
				r := newRig(t, setup{})
				d, content := r.put(9, size)
				r.registry.Fault(upstreamtest.Fault{Match: get, Corrupt: true, CorruptAt: at, NoLength: untold})
				bad := bytes.Clone(content)
				bad[at] ^= 1
				each(4, func(i int) {
					off := int64(i) * size / 4
					k, _, err := r.pull(r.ref(d), bad, off, -1)
					if k > size-off-cache.HoldBack {
						t.Errorf("from %d: %d bytes of a wrong blob were sent", off, k)
					}
					if !errors.Is(err, cache.ErrDigest) {
						t.Errorf("error %v for a wrong blob", err)
					}
				})
				r.registry.ClearFaults()
				wrong := r.gets(d)
				if _, ok := r.store.Stat(d); ok {
					t.Error("the store holds a wrong blob")
				}
				r.mustPull(r.ref(d), content, oci.Miss)
				r.wantGets(d, wrong+1)
			})
		}
	}
}

func TestASmallBlobHealsWithinTheRequest(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1, 1000, 64 * kib, 64*kib + 1, mib, 4 * mib} {
		r := newRig(t, setup{})
		d, content := r.put(9, size)
		r.registry.Fault(upstreamtest.Fault{Match: get, Corrupt: true, CorruptAt: size / 2, Times: 1})
		each(20, func(int) {
			if k, _, err := r.pull(r.ref(d), content, 0, -1); err != nil {
				t.Errorf("%d bytes, error %v", k, err)
			}
		})
		r.wantGets(d, 2)
	}
}

func TestASmallBlobThatStaysWrongIsAnError(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	d, _ := r.put(9, 1000)
	r.registry.Fault(upstreamtest.Fault{Match: get, Corrupt: true})
	_, err := r.Blob(t.Context(), r.ref(d))
	wantKind(t, err, oci.Corrupt)
	if n := r.gets(d); n > 4 {
		t.Errorf("%d GETs of a blob that stays wrong", n)
	}
	if _, ok := r.store.Stat(d); ok {
		t.Error("the store holds a wrong blob")
	}
}

// A small blob is verified before any of it is sent. If it does not come, the client does
// not wait long for that.
func TestASmallBlobThatDawdlesIsSentAsItComes(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{stall: time.Minute})
	d, content := r.put(9, mib)
	r.registry.Fault(upstreamtest.Fault{Match: get, Stall: true, StallAfter: 700 * kib, Times: 1})
	start := time.Now()
	a, err := r.Blob(t.Context(), r.ref(d))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	c := &checker{left: content[:512*kib]}
	if _, err := a.Send(t.Context(), c, 0, 512*kib); err != nil || len(c.left) > 0 {
		t.Errorf("%d bytes are missing, error %v", len(c.left), err)
	}
	if took := time.Since(start); took < time.Second || took > 30*time.Second { // the registry stalls for a minute
		t.Errorf("the first half of a stalled blob came after %v", took)
	}
}

// Wrong bytes in a large blob are noticed only at its end. If the client has got none of
// them by then, the same response goes on from another download. The registry stops
// half-way, so that the test controls what has been sent by then: some of the first
// half, or nothing.
func TestAWrongByteThatWasNotSentIsReplacedUnseen(t *testing.T) {
	t.Parallel()
	const size, half = 5 * mib, 5 * mib / 2
	for name, test := range map[string]struct {
		at     int64
		cut    int64
		off    int64
		gets   int
		untold bool // the registry does not tell the size
		unsent bool // nothing has been sent when the digest is checked
		bad    bool // the response is cut
	}{
		"the last byte":                           {at: size - 1, gets: 2},
		"in what is held back":                    {at: size - 64*kib, gets: 2},
		"in what is held back, and cut":           {at: size - 1000, cut: size - 1, gets: 3},
		"in what is held back, size untold":       {at: size - 1000, gets: 2, untold: true},
		"before the range asked for":              {at: 1000, off: mib, gets: 2},
		"the first byte behind what had left":     {at: half, gets: 2},
		"sent before":                             {at: 100, gets: 2, bad: true}, // the first piece is some hundred bytes
		"sent before, the first byte of a range":  {at: mib, off: mib, gets: 2, bad: true},
		"nothing sent, the first byte":            {at: 0, gets: 2, unsent: true},
		"nothing sent, size untold":               {at: 1000, gets: 2, untold: true, unsent: true},
		"nothing sent, the first byte of a range": {at: mib, off: mib, gets: 2, unsent: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			d, content := r.put(9, size)
			rest := make(chan struct{})
			r.registry.Fault(upstreamtest.Fault{
				Match: get, Corrupt: true, CorruptAt: test.at, CutAfter: test.cut, NoLength: test.untold,
				Stall: true, StallAfter: half, StallUntil: rest, Times: 1,
			})
			c := r.begin(d, 1)
			if test.unsent {
				close(rest)
				r.events.await(notFilled, 1)
				c.send(test.off)
				<-c.reached
			} else {
				c.send(test.off)
				<-c.reached
				close(rest)
				r.events.await(notFilled, 1)
			}
			close(c.open)
			err := <-c.ended
			if !test.bad && (err != nil || !bytes.Equal(c.Bytes(), content[test.off:])) {
				t.Errorf("%d bytes, error %v", c.Len(), err)
			}
			bad := bytes.Clone(content[:half])
			if test.bad {
				bad[test.at] ^= 1 // as it was sent
			}
			if test.bad && (!errors.Is(err, cache.ErrDigest) || !bytes.HasPrefix(bad[test.off:], c.Bytes())) {
				t.Errorf("%d bytes, error %v", c.Len(), err)
			}
			r.wantGets(d, test.gets)
		})
	}
}

// A registry that sends wrong bytes a second time is not asked a third time if part of
// the blob has been sent.
func TestAWrongByteIsReplacedOnce(t *testing.T) {
	t.Parallel()
	const size, half, more = 5 * mib, 5 * mib / 2, 4 * mib
	r := newRig(t, setup{})
	d, content := r.put(9, size)
	rest := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	for i, after := range []int64{half, more} {
		r.registry.Fault(upstreamtest.Fault{
			Match: get, Corrupt: true, CorruptAt: size - 1, Stall: true, StallAfter: after, StallUntil: rest[i], Times: 1,
		})
	}
	c := r.begin(d, 1, half+1)
	c.send(0)
	<-c.reached
	close(rest[0])
	r.events.await(notFilled, 1)
	c.open <- struct{}{}
	<-c.reached // bytes of the second download
	close(rest[1])
	r.events.await(notFilled, 2)
	close(c.open)
	if err := <-c.ended; !errors.Is(err, cache.ErrDigest) || !bytes.HasPrefix(content[:more], c.Bytes()) {
		t.Errorf("%d bytes, error %v", c.Len(), err)
	}
	r.wantGets(d, 2)
}

// If a token expires during a pull, the registry is asked with a new one. The client does
// not notice.
func TestATokenThatEndsInMidPullIsReplacedUnseen(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			auth := upstreamtest.BearerAuth{Anonymous: true, ExpiredStatus: status}
			r := newRig(t, setup{options: []upstreamtest.Option{upstreamtest.Bearer(auth), upstreamtest.Redirect()}})
			layer := random(9, 2*mib)
			img := r.registry.PutImage(repo, "latest", layer)
			r.registry.ExpireTokensAfter(1) // between the tag's HEAD and the manifest's GET
			if m, err := r.Manifest(t.Context(), r.tag("latest"), nil, false); err != nil || !bytes.Equal(m.Bytes, img.ManifestBytes) {
				t.Errorf("manifest %+v, error %v", m, err)
			}
			r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Server: "cdn"}, CutAfter: mib, Times: 1})
			r.registry.ExpireTokensAfter(1) // between the layer's two parts
			r.mustPull(r.ref(img.Layers[0]), layer, oci.Miss)
			if got := r.ranges(img.Layers[0]); got[len(got)-1] != "bytes="+strconv.Itoa(mib)+"-" {
				t.Errorf("upstream was asked for %q", got)
			}
			if n := r.registry.Count("GET", "/Token-Service/"); n != 3 {
				t.Errorf("%d tokens were asked for, want the first and one for each that expired", n)
			}
		})
	}
}
