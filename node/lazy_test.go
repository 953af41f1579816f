package node

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A lazy blob is one that nobody wants whole, in front of a node that does not have it.
type lazy struct {
	*proxy
	d       digest.Digest
	content []byte
}

func newLazy(t *testing.T, size int64, options ...upstreamtest.Option) *lazy {
	t.Helper()
	l := &lazy{content: random(uint64(size), size)}
	up := upstreamtest.New(t, options...)
	l.d = up.PutBlob(repo, l.content)
	l.proxy = newProxy(t, up, settings{})
	return l
}

// reads gets ranges and compares all that comes. It returns how many bytes that is.
func (l *lazy) reads(t *testing.T, spec string) (n int64) {
	t.Helper()
	a := l.get(blobPath(l.d), "Range", spec)
	if a.StatusCode != http.StatusPartialContent || a.err != nil {
		t.Fatalf("%s: status %d, %v", spec, a.StatusCode, a.err)
	}
	parts := []part{{a.Header.Get("Content-Range"), a.body}}
	if strings.HasPrefix(a.Header.Get("Content-Type"), "multipart/") {
		parts = partsOf(t, a)
	}
	for _, p := range parts {
		var first, last, size int
		if _, err := fmt.Sscanf(p.said, "bytes %d-%d/%d", &first, &last, &size); err != nil || size != len(l.content) || !bytes.Equal(p.body, l.content[first:last+1]) {
			t.Fatalf("%s: %q with %d bytes, wrong (%v)", spec, p.said, len(p.body), err)
		}
		n += int64(len(p.body))
	}
	return n
}

// bears fails the test if the registry sent more than that many bytes of blobs and a tenth.
func (l *lazy) bears(t *testing.T, asked int64) {
	t.Helper()
	if sent := l.up.BytesSent(); sent*10 > asked*11 {
		t.Errorf("the registry sent %d bytes for %d", sent, asked)
	}
}

func TestARangeOfABlobThatNobodyWantsCostsWhatItIs(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for _, spec := range []string{
		"bytes=4193304-4194303", // the last 1000
		"bytes=-1000",
		"bytes=4193304-",
		"bytes=0-1",
		"bytes=4194303-4194303",
		"bytes=4193304-9999999",
		"bytes=2000000-2000999",
		"bytes=100000-1900000", // more than a piece
		"bytes=0-9,-9",
		"bytes=3000000-3000999, 5-9, 1000000-1001023,9999999-",
	} {
		t.Run(spec, func(t *testing.T) {
			t.Parallel()
			l := newLazy(t, size, upstreamtest.Redirect())
			asked := l.reads(t, spec)
			l.bears(t, asked)
			l.reads(t, spec) // what comes again and again stays in memory
			l.bears(t, asked)
			before := l.up.BytesSent()
			if a := l.get(blobPath(l.d)); !bytes.Equal(a.body, l.content) {
				t.Error("the whole is wrong")
			}
			if n := l.up.BytesSent() - before; n != size {
				t.Errorf("then the whole cost %d bytes: a range was kept for the blob", n)
			}
			before = l.up.BytesSent()
			l.reads(t, spec)
			if n := l.up.BytesSent() - before; n != 0 {
				t.Errorf("a range of the cached blob cost %d bytes", n)
			}
		})
	}
}

// Whoever wants the whole in ranges gets it by one download: containerd opens a few
// streams without an end, docker goes on with one that broke off, and a reader of pieces
// has had half of the blob at some time.
func TestRangesOfABlobThatIsWantedWholeAreOneDownload(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for name, c := range map[string]struct {
		specs []string
		most  int64
	}{
		"containerd":       {[]string{"bytes=0-", "bytes=1048576-", "bytes=2097152-", "bytes=3145728-"}, size},
		"docker":           {[]string{"bytes=3000000-"}, size},
		"more than a half": {[]string{"bytes=1-2200000"}, size},
		"several ranges":   {[]string{"bytes=0-1200000,2000000-3200000"}, size},
		"piece by piece":   {[]string{"bytes=0-999999", "bytes=1000000-1999999", "bytes=2000000-2999999", "bytes=3000000-3999999", "bytes=4000000-"}, size * 3 / 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLazy(t, size)
			for _, spec := range c.specs {
				l.reads(t, spec)
			}
			l.log.Await(t, "blob filled", 1)
			if n := l.up.BytesSent(); n < size || n > c.most {
				t.Errorf("the registry sent %d bytes, want %d at most", n, c.most)
			}
			l.get(blobPath(l.d)).want(t, 200, "Cache-Status", "oci-proxy; hit")
		})
	}
}

// While a download is under way, ranges far ahead of it do not wait, and those that it
// brings soon cost nothing.
func TestARangeFarAheadOfADownloadDoesNotWaitForIt(t *testing.T) {
	t.Parallel()
	const size = 6 << 20
	l := newLazy(t, size)
	release := halve(l.up, l.d.String(), size/2)
	whole := l.send(http.MethodGet, blobPath(l.d))
	l.up.WaitFor(upstreamtest.Match{Method: http.MethodGet, PathPart: l.d.String()}, 1)
	for _, spec := range []string{"bytes=-1000", "bytes=6000000-6000999", "bytes=5000000-5000000,6000100-6000200"} {
		l.reads(t, spec)
	}
	if n := l.reads(t, "bytes=0-99"); n != 100 {
		t.Errorf("%d bytes", n)
	}
	release()
	if b := read(whole); !bytes.Equal(b.body, l.content) {
		t.Error("the whole is wrong")
	}
	l.bears(t, size)
	if n := l.up.Count(http.MethodGet, l.d.String()); n != 1+4 {
		t.Errorf("%d requests, want the download and 4 ranges", n)
	}
}

// The figure of the row: 1000 bytes at the end of 30 MB, at 2 MB/s, within 2 s. A machine that is
// busy for so long delays one of three, but none as long as the whole takes, which is 15 s.
func TestTheEndOfAColdBlobComesAtOnce(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	const size = 30_000_000
	l := newLazy(t, size)
	l.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet}, SlowBytesPerSecond: 2_000_000})
	var took []time.Duration
	for _, spec := range []string{"bytes=29999000-29999999", "bytes=-1001", "bytes=29998998-"} {
		start := time.Now()
		l.reads(t, spec)
		took = append(took, time.Since(start).Round(time.Millisecond))
	}
	t.Logf("they took %v", took)
	if slices.Min(took) > 2*time.Second || slices.Max(took) > 15*time.Second {
		t.Errorf("they took %v", took)
	}
	l.bears(t, 3003)
}

// What real lazy readers asked for, as a registry's log had it: the stargz snapshotter's
// remote reader (v0.19.1) opens a layer of 80 files and reads four; podman's library
// (go.podman.io/image v5.42.1) pulls a zstd:chunked layer of which four files are new, and
// one of which twenty are.
var realReads = map[string]struct {
	size  int64
	specs []string
}{
	"stargz": {30093270, []string{"bytes=0-1", "bytes=30050000-30093269", "bytes=28050000-28099999", "bytes=8000000-8549999", "bytes=500000-549999", "bytes=15000000-15549999"}},
	"podman": {30114000, []string{"bytes=30076346-30111065,30111074-30113551", "bytes=13034268-13037281,14044096-14544356,15044534-15544710,17545730-18045991"}},
	"podman, many files": {30114000, []string{
		"bytes=30076394-30111300,30111309-30113798",
		"bytes=2513615-3013820,5518049-6018350,6524744-7025005,8528922-9529368,10529914-11030178,11533545-12534028,13543812-14044115,14544336-15044581," +
			"15544816-16045035,16545272-18546331,21053727-21553975,25558912-26059160,26062262-26562395,27562807-28063053,28072356-28572642",
	}},
}

func TestTheReadsOfRealClientsCostWhatTheyAskFor(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	for name, c := range realReads {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLazy(t, c.size)
			asked := int64(0)
			for _, spec := range c.specs {
				asked += l.reads(t, spec)
			}
			l.bears(t, asked)
			t.Logf("the registry sent %d bytes for %d: %.3f", l.up.BytesSent(), asked, float64(l.up.BytesSent())/float64(asked))
		})
	}
}

// A herd asks for the same bytes: one request, and for a while none.
func TestEqualRangesAreAskedForOnce(t *testing.T) {
	t.Parallel()
	l := newLazy(t, 4<<20)
	release := l.up.Hold(upstreamtest.Match{Method: http.MethodGet})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			resp, err := l.try(http.MethodGet, blobPath(l.d), "Range", "bytes=-5000")
			if err != nil {
				t.Error(err)
				return
			}
			if a := read(resp); !bytes.Equal(a.body, l.content[len(l.content)-5000:]) {
				t.Errorf("status %d, %d bytes", a.StatusCode, len(a.body))
			}
		})
	}
	l.up.WaitFor(upstreamtest.Match{Method: http.MethodGet}, 1)
	release()
	wg.Wait()
	l.reads(t, "bytes=-5000")
	if gets, heads := l.up.Count(http.MethodGet, l.d.String()), l.up.Count(http.MethodHead, l.d.String()); gets != 1 || heads > 3 {
		t.Errorf("%d GETs, %d HEADs", gets, heads)
	}
}

// What a registry answers to a range in place of it never reaches the client: the whole
// is got and verified.
func TestARangeThatTheRegistryGetsWrongComesFromTheWhole(t *testing.T) {
	t.Parallel()
	ranged := func(f upstreamtest.Fault) upstreamtest.Fault {
		f.Method, f.Times = http.MethodGet, 1
		return f
	}
	for name, f := range map[string]upstreamtest.Fault{
		"the whole":         {IgnoreRange: true},
		"another range":     {WrongRange: true},
		"another size":      {Header: http.Header{"Content-Range": {"bytes 4190000-4190999/5000000"}}},
		"a shorter range":   {Header: http.Header{"Content-Range": {"bytes 4190000-4190499/4194304"}}},
		"no Content-Range":  {Header: http.Header{"Content-Range": nil}},
		"a cut":             {CutAfter: 500},
		"416":               {Status: http.StatusRequestedRangeNotSatisfiable},
		"400":               {Status: http.StatusBadRequest},
		"a page":            {Status: 206, Body: "<html>", Header: http.Header{"Content-Type": {"text/html"}, "Content-Range": {"bytes 4190000-4190999/4194304"}}},
		"nothing with 206":  {Status: 206},
		"empty with 200":    {Status: 200},
		"a length too long": {LieLength: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLazy(t, 4<<20)
			l.up.Fault(ranged(f))
			if n := l.reads(t, "bytes=4190000-4190999"); n != 1000 {
				t.Errorf("%d bytes", n)
			}
		})
	}
}

// A registry that ignores Range is not asked for one again, but for the whole, once.
func TestARegistryWithoutRangesIsRemembered(t *testing.T) {
	t.Parallel()
	l := newLazy(t, 4<<20)
	l.up.Fault(upstreamtest.Fault{IgnoreRange: true})
	other := random(99, 4<<20)
	d := l.up.PutBlob(repo, other)
	l.reads(t, "bytes=-1000")
	a := l.get(blobPath(d), "Range", "bytes=-1000")
	if a.want(t, 206); !bytes.Equal(a.body, other[len(other)-1000:]) {
		t.Error("wrong bytes")
	}
	if first, second := l.up.Count(http.MethodGet, l.d.String()), l.up.Count(http.MethodGet, d.String()); first != 2 || second != 1 {
		t.Errorf("%d requests for the first blob, %d for the second", first, second)
	}
}

// A wrong byte of a range can't be seen until the blob is whole; then it is told.
func TestARangeThatWasWrongIsTold(t *testing.T) {
	t.Parallel()
	const told = "a range was served whose bytes are not the blob's"
	for _, wrong := range []bool{false, true} {
		l := newLazy(t, 4<<20)
		if wrong {
			l.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet}, Times: 1, Corrupt: true, CorruptAt: 3_000_005})
		}
		a := l.get(blobPath(l.d), "Range", "bytes=3000000-3000999")
		if bytes.Equal(a.body, l.content[3_000_000:3_001_000]) == wrong {
			t.Fatalf("wrong %v: status %d", wrong, a.StatusCode)
		}
		for range 2 {
			if a := l.get(blobPath(l.d)); !bytes.Equal(a.body, l.content) {
				t.Error("the whole is wrong")
			}
		}
		if wrong {
			l.log.Await(t, told, 1)
			l.reads(t, "bytes=3000000-3000999")
		} else if strings.Contains(l.log.String(), told) {
			t.Error("a right range is called wrong")
		}
	}
}

// HEAD has no ranges, and If-Range of something else wants the whole.
func TestSeveralRangesOnlyOfWhatTheClientHas(t *testing.T) {
	t.Parallel()
	l := newLazy(t, 2<<20)
	l.get(blobPath(l.d), "Range", "bytes=0-1,5-6", "If-Range", `"other"`).want(t, 200, "Content-Length", "2097152")
	l.do(http.MethodHead, blobPath(l.d), "Range", "bytes=0-1,5-6").want(t, 200, "Content-Range", "", "Content-Length", "2097152")
	a := l.get(blobPath(l.d), "Range", "bytes=5-6,0-1", "If-Range", `"`+l.d.String()+`"`)
	if parts := partsOf(t, a); len(parts) != 2 || parts[0].said != "bytes 5-6/2097152" {
		t.Errorf("%v", parts)
	}
}

// The registry's no is final for a range as for the whole, and what one repository was
// given is not for another.
func TestARangeIsForThoseWhomTheRegistryLets(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t, upstreamtest.Basic("u", "p"))
	content := random(5, 4<<20)
	d := up.PutBlob(repo, content)
	up.PutBlob("team/other", []byte("x"))
	p := newProxy(t, up, settings{registry: `auth: {username: u, password: p}`})
	other := strings.Replace(blobPath(d), repo, "team/other", 1)
	for range 2 { // the second from memory
		if a := p.get(blobPath(d), "Range", "bytes=-1000"); a.StatusCode != 206 || !bytes.Equal(a.body, content[len(content)-1000:]) {
			t.Fatalf("status %d, %d bytes", a.StatusCode, len(a.body))
		}
		p.get(other, "Range", "bytes=-1000").want(t, 404)
	}
	up.Fault(upstreamtest.Fault{Status: 403, Header: http.Header{"Docker-Distribution-Api-Version": {"registry/2.0"}}})
	p.get(blobPath(d), "Range", "bytes=-2000").want(t, 403)
	p.get(blobPath(d), "Range", "bytes=-1000").want(t, 403) // what is in memory, too
}
