package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A listed image is what a test looks at of /_/images.
type listedImage struct {
	Image, Digest        string
	Platforms            []string
	Size, Held           int64
	Used, Checked        time.Time
	Pinned, Stale        bool
	Registry, Repository string
}

// A list is the answer of /_/images.
type imageList struct {
	Images  []listedImage
	Others  struct{ Blobs, Bytes int }
	Missing []struct{ Name, Reason string }
}

// names are those of the images.
func (l imageList) names() (out []string) {
	for _, one := range l.Images {
		out = append(out, one.Image)
	}
	return out
}

// A told line is one of the answer to an operator.
type told struct {
	Image, Digest, Pattern, Node, Error, Registry string
	Blobs, Of, Images, Tags, Failed, Bad          int
	Bytes                                         int64
	Missing                                       []struct{ Name, Reason string }
	Done                                          bool
}

// postTo posts JSON to a node, and returns the lines that it answers.
func postTo(t testing.TB, client *http.Client, url, body string) (status int, all []told) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	a := read(resp)
	for dec := json.NewDecoder(bytes.NewReader(a.body)); ; {
		var one told
		if err := dec.Decode(&one); err == io.EOF {
			return a.StatusCode, all
		} else if err != nil {
			t.Fatalf("%v in %s", err, a.body)
		}
		all = append(all, one)
	}
}

// last is the last line.
func last(t testing.TB, all []told) told {
	t.Helper()
	if len(all) == 0 || !all[len(all)-1].Done {
		t.Fatalf("the answer has no last line: %+v", all)
	}
	return all[len(all)-1]
}

// imagesAt lists what the node at a URL and its cluster hold.
func imagesAt(t testing.TB, client *http.Client, url string) (l imageList) {
	t.Helper()
	resp, err := client.Get(url + "/_/images")
	if err != nil {
		t.Fatal(err)
	}
	a := read(resp)
	if err := json.Unmarshal(a.body, &l); err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("%d %v %s", a.StatusCode, err, a.body)
	}
	return l
}

// A pullable image has a layer of its own and one that it shares.
type shelf struct {
	t      testing.TB
	up     *upstreamtest.Registry
	shared []byte
}

// put puts an image with a config of that architecture.
func (s shelf) put(repo, tag, arch string, seed uint64) upstreamtest.Image {
	img := s.up.PutImage(repo, "", random(seed, 10_000), s.shared)
	config := []byte(fmt.Sprintf(`{"os":"linux","architecture":%q,"seed":%d}`, arch, seed))
	img.Config = s.up.PutBlob(repo, config)
	layer := func(d digest.Digest, n int) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}`, d, n)
	}
	img.ManifestBytes = []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[%s,%s]}`,
		upstreamtest.TypeManifest, img.Config, len(config), layer(img.Layers[0], 10_000), layer(img.Layers[1], len(s.shared))))
	img.Manifest = s.up.PutManifest(repo, tag, upstreamtest.TypeManifest, img.ManifestBytes)
	return img
}

// pullImage pulls an image through a node: its manifest by reference, and all blobs.
func pullImage(t testing.TB, get func(path string, header ...string) answer, repo, reference string, img upstreamtest.Image) {
	t.Helper()
	get("/v2/"+repo+"/manifests/"+reference).want(t, http.StatusOK)
	for _, d := range append([]digest.Digest{img.Config}, img.Layers...) {
		get("/v2/"+repo+"/blobs/"+d.String()).want(t, http.StatusOK)
	}
}

func TestImagesOfOneNode(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	s := shelf{t, up, random(99, 20_000)}
	dir := t.TempDir()
	p := newProxy(t, up, settings{dir: dir})
	one, two, three := s.put("team/a", "v1", "amd64", 1), s.put("team/b", "v2", "arm64", 2), s.put("team/c", "v3", "s390x", 3)
	pullImage(t, p.get, "team/a", "v1", one)
	pullImage(t, p.get, "team/b", two.Manifest.String(), two)
	p.get("/v2/team/c/manifests/v3").want(t, http.StatusOK) // nothing but its manifest
	stray := up.PutBlob(repo, random(7, 500))
	p.get(blobPath(stray)).want(t, http.StatusOK)

	check := func(p *proxy) {
		t.Helper()
		got := imagesAt(t, p.client, p.url)
		names := []string{up.Host() + "/team/a:v1", up.Host() + "/team/b@" + two.Manifest.String(), up.Host() + "/team/c:v3"}
		if !slices.Equal(got.names(), names) || got.Others.Blobs != 1 || got.Others.Bytes != 500 || len(got.Missing) != 0 {
			t.Fatalf("%+v", got)
		}
		for i, img := range []upstreamtest.Image{one, two, three} {
			l, size := got.Images[i], int64(len(img.ManifestBytes))+30_000
			if l.Digest != img.Manifest.String() || l.Size < size || l.Size > size+100 || l.Pinned || l.Stale || time.Since(l.Used) > 2*time.Minute {
				t.Errorf("%+v", l)
			}
			if held := i < 2; held != (l.Held == l.Size) || held != (len(l.Platforms) == 1) {
				t.Errorf("%s: %d of %d bytes, %v", l.Image, l.Held, l.Size, l.Platforms)
			}
			if tagged := i != 1; tagged == l.Checked.IsZero() {
				t.Errorf("%s was checked %v", l.Image, l.Checked)
			}
		}
		if got.Images[0].Platforms[0] != "linux/amd64" || got.Images[1].Platforms[0] != "linux/arm64" {
			t.Errorf("%+v", got.Images)
		}
	}
	check(p)
	p.close()
	p = newProxy(t, up, settings{dir: dir})
	check(p)
	for match, n := range map[string]int{"**": 3, "*/team/*": 3, up.Host() + "/team/b": 0, "team/a:v1": 1, "team/*:v*": 2, "*/team/[a]": 0, "%20x/**": 0} {
		var l imageList
		if a := p.get("/_/images?match=" + match); json.Unmarshal(a.body, &l) != nil || a.StatusCode == http.StatusOK && len(l.Images) != n {
			t.Errorf("%s: %s", match, a.body)
		}
	}
}

// Purging takes what nothing else needs, and says so before. What is asked for again comes
// from the registry.
func TestPurgeOfOneNode(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	s := shelf{t, up, random(99, 20_000)}
	p := newProxy(t, up, settings{})
	one, two := s.put("team/a", "v1", "amd64", 1), s.put("team/a", "v2", "amd64", 2)
	pullImage(t, p.get, "team/a", "v1", one)
	pullImage(t, p.get, "team/a", "v2", two)
	for _, body := range []string{"", "{}", `{"patterns":[]}`, `{"patterns":["a//b*"]}`, `{"patterns":["***"]}`, `{"patterns":["a b*"]}`, `{"patterns":[" "]}`} {
		if status, all := postTo(t, p.client, p.url+"/_/purge", body); status != http.StatusBadRequest {
			t.Errorf("%s: %d %+v", body, status, all)
		}
	}
	before := imagesAt(t, p.client, p.url)
	_, all := postTo(t, p.client, p.url+"/_/purge", `{"patterns":["team/a:v1","nobody/**"],"dry_run":true}`)
	frees := int64(len(one.ManifestBytes)) + 10_000 + before.Images[0].Size - int64(len(one.ManifestBytes)) - 30_000
	if end := last(t, all); all[0].Image != up.Host()+"/team/a:v1" || all[0].Bytes != frees || all[1].Pattern != "nobody/**" || all[1].Error == "" ||
		end.Images != 1 || end.Blobs != 3 || end.Bytes != frees || end.Failed != 1 {
		t.Errorf("%+v; it should free %d", all, frees)
	}
	if after := imagesAt(t, p.client, p.url); len(after.Images) != 2 || after.Images[0].Held != before.Images[0].Held {
		t.Errorf("a dry run changed something: %+v", after)
	}
	_, all = postTo(t, p.client, p.url+"/_/purge", `{"patterns":["team/a:v1"]}`)
	if end := last(t, all); end.Blobs != 3 || end.Bytes != frees || end.Failed != 0 || end.Tags != 1 {
		t.Errorf("%+v", all)
	}
	if after := imagesAt(t, p.client, p.url); len(after.Images) != 1 || after.Images[0].Held != after.Images[0].Size || after.Others.Blobs != 0 {
		t.Errorf("%+v", after)
	}
	p.get("/v2/team/a/manifests/v1").want(t, http.StatusOK)
	p.get("/v2/team/a/blobs/"+one.Layers[0].String()).want(t, http.StatusOK, "Cache-Status", "oci-proxy; fwd=uri-miss; stored")
	p.get("/v2/team/a/blobs/"+one.Layers[1].String()).want(t, http.StatusOK, "Cache-Status", "oci-proxy; hit")
	_, all = postTo(t, p.client, p.url+"/_/purge", `{"patterns":["**"]}`)
	if after := imagesAt(t, p.client, p.url); len(after.Images) != 0 || after.Others.Blobs != 0 || last(t, all).Failed != 0 {
		t.Errorf("%+v is left after %+v", after, all)
	}
}

// Strangers change nothing, and see of private registries nothing at all.
func TestStrangersAndImages(t *testing.T) {
	t.Parallel()
	up, private := upstreamtest.New(t), upstreamtest.New(t)
	one := shelf{t, up, random(99, 20_000)}.put("open/a", "v1", "amd64", 1)
	shut := shelf{t, up, random(97, 20_000)}.put("closed/a", "v1", "amd64", 3)
	two := shelf{t, private, random(98, 20_000)}.put("secret/a", "v1", "amd64", 2)
	more := fmt.Sprintf("  %q: {insecure: true, private: true}", private.Host())
	dir := t.TempDir()
	p := newProxy(t, up, settings{dir: dir, more: more})
	pullImage(t, p.get, "open/a", "v1", one)
	pullImage(t, p.get, "closed/a", "v1", shut)
	pullImage(t, p.get, private.Host()+"/secret/a", "v1", two)
	if l := imagesAt(t, p.client, p.url); len(l.Images) != 3 {
		t.Errorf("on its own machine: %+v", l)
	}
	far := []string{"X-Forwarded-For", "192.0.2.1"}
	for _, path := range []string{"/_/images", "/_/images?match=**", "/_/images?match=" + private.Host() + "/secret/a:v1"} {
		if a := p.get(path, far...); a.StatusCode != http.StatusOK || strings.Contains(string(a.body), "secret") || strings.Contains(string(a.body), "blobs") {
			t.Errorf("%s from elsewhere: %d %s", path, a.StatusCode, a.body)
		}
	}
	orders := []string{"/_/purge", "/_/pin", "/_/unpin", "/_/verify"}
	for _, path := range orders {
		p.do(http.MethodPost, path, far...).want(t, http.StatusForbidden)
		p.do(http.MethodPost, path).want(t, http.StatusUnsupportedMediaType)
		p.do(http.MethodPost, path, "Content-Type", "application/json", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site").want(t, http.StatusForbidden)
		p.get(path).want(t, http.StatusNotFound)
	}
	p.close()

	p = newProxy(t, up, settings{dir: dir, top: login + ", anonymous_from: [192.0.2.0/24]}\ntrusted_proxies: [127.0.0.0/8]", more: more})
	for _, header := range [][]string{nil, far, basic("puller", "wrong")} {
		for _, path := range orders {
			p.do(http.MethodPost, path, append(header, "Content-Type", "application/json")...).want(t, http.StatusUnauthorized)
		}
		p.get("/_/images", header...).want(t, http.StatusUnauthorized)
	}
	if a := p.get("/_/images", basic("puller", "right:one")...); strings.Count(string(a.body), `"image"`) != 3 {
		t.Errorf("by an admin: %s", a.body)
	}
	p.close()

	// What the access rules refuse, a stranger does not hear of either.
	p = newProxy(t, up, settings{dir: dir, top: "access: [{users: [anonymous], deny: ['*/closed/**']}]", more: more})
	if a := p.get("/_/images", far...); strings.Count(string(a.body), `"image"`) != 1 || !strings.Contains(string(a.body), "open/a") {
		t.Errorf("under access rules: %s", a.body)
	}
}

func TestPurgeInAMesh(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	c := newCluster(t, 3)
	s := shelf{t, c.up, random(99, 20_000)}
	one, two := s.put("team/a", "v1", "amd64", 1), s.put("team/b", "v2", "amd64", 2)
	at := func(i int) func(string, ...string) answer {
		return func(path string, header ...string) answer { return c.get(i, path, header...) }
	}
	for i := range 3 {
		pullImage(t, at(i), "team/a", "v1", one)
	}
	pullImage(t, at(0), "team/b", "v2", two)
	url := func(i int) string { return "http://" + c.nodes[i].client }
	for i := range 3 {
		l := imagesAt(t, c.client, url(i))
		if len(l.Images) != 2 || l.Images[0].Held != l.Images[0].Size || l.Images[1].Held != l.Images[1].Size || len(l.Missing) != 0 {
			t.Fatalf("at %d: %+v", i, l)
		}
	}
	_, all := postTo(t, c.client, url(1)+"/_/purge", `{"patterns":["team/a:v1"],"dry_run":true}`)
	dry := last(t, all)
	if l := imagesAt(t, c.client, url(2)); len(l.Images) != 2 || dry.Blobs < 3 {
		t.Fatalf("after a dry run %+v: %+v", dry, l)
	}
	_, all = postTo(t, c.client, url(1)+"/_/purge", `{"patterns":["team/a:v1"]}`)
	if end := last(t, all); end.Blobs != dry.Blobs || end.Bytes != dry.Bytes || end.Failed != 0 || end.Images != 1 {
		t.Errorf("%+v; the dry run said %+v", all, dry)
	}
	for i := range 3 {
		for _, shard := range c.nodes[i].node.registries.Shards() {
			for _, d := range []digest.Digest{one.Manifest, one.Config, one.Layers[0]} {
				if _, held := shard.Stat(d); held {
					t.Errorf("node %d still holds %s", i, d)
				}
			}
			if tags, err := shard.Stock().Tags(t.Context()); err != nil || slices.ContainsFunc(tags, func(t cache.Tag) bool { return strings.Contains(t.Key, "team/a") }) {
				t.Errorf("node %d still knows %v (%v)", i, tags, err)
			}
		}
		l := imagesAt(t, c.client, url(i))
		if len(l.Images) != 1 || l.Images[0].Held != l.Images[0].Size {
			t.Errorf("at %d: %+v", i, l)
		}
	}

	c.kill(2)
	c.await("the member is down", func() bool { return c.nodes[0].node.cluster.Size() == 2 })
	l := imagesAt(t, c.client, url(0))
	if len(l.Missing) != 1 || l.Missing[0].Name != c.nodes[2].name {
		t.Errorf("%+v", l.Missing)
	}
	_, all = postTo(t, c.client, url(0)+"/_/purge", `{"patterns":["**"]}`)
	if end := last(t, all); end.Failed != 1 || len(end.Missing) != 1 {
		t.Errorf("%+v", end)
	}
}

// Pinned images stay when the cache is full, at every node and after a restart, and can't
// be purged. No more than a quarter can be pinned.
func TestPinInAMesh(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	up := upstreamtest.New(t)
	c := formCluster(t, 3, up, func(int) form { return form{settings: settings{defaults: "cache_max_size: 1m"}} })
	s := shelf{t, up, random(99, 50_000)}
	img := s.put("team/a", "v1", "amd64", 1)
	at := func(i int) func(string, ...string) answer {
		return func(path string, header ...string) answer { return c.get(i, path, header...) }
	}
	pullImage(t, at(0), "team/a", "v1", img)
	big := up.PutImage("team/big", "v1", random(3, 300_000))
	pullImage(t, at(0), "team/big", "v1", big)
	url := func(i int) string { return "http://" + c.nodes[i].client }
	_, all := postTo(t, c.client, url(1)+"/_/pin", `{"images":["team/a:v1","team/none:v1","team/big:v1","x y"]}`)
	if end := last(t, all); end.Images != 1 || end.Failed != 3 || all[0].Error != "" || all[0].Bytes < 60_000 ||
		!strings.Contains(all[1].Error, "warm it first") || !strings.Contains(all[2].Error, "a quarter") || !strings.Contains(all[2].Error, "node-") || all[3].Error == "" {
		t.Fatalf("%+v", all)
	}
	pinned := func(i int) bool {
		l := imagesAt(t, c.client, url(i))
		k := slices.Index(l.names(), up.Host()+"/team/a:v1")
		return k >= 0 && l.Images[k].Pinned && l.Images[k].Held == l.Images[k].Size
	}
	press := func(from uint64) {
		for k := range uint64(12) {
			d := up.PutBlob(repo, random(from+k, 200_000))
			for i := range 3 {
				c.get(i, blobPath(d)).want(t, http.StatusOK)
			}
		}
	}
	press(100)
	for i := range 3 {
		if !pinned(i) {
			t.Errorf("at %d it is not held or not pinned: %+v", i, imagesAt(t, c.client, url(i)))
		}
	}
	for i := range 3 {
		c.stop(i)
		c.start(i)
	}
	c.awaitMembers(3)
	press(200)
	if !pinned(2) {
		t.Errorf("after a restart: %+v", imagesAt(t, c.client, url(2)))
	}
	_, all = postTo(t, c.client, url(0)+"/_/purge", `{"patterns":["**"]}`)
	if end := last(t, all); end.Failed != 1 || !pinned(0) {
		t.Errorf("purged what is pinned: %+v", all)
	}
	_, all = postTo(t, c.client, url(0)+"/_/unpin", `{"images":["team/a:v1","team/big:v1"]}`)
	if end := last(t, all); end.Images != 1 || end.Failed != 1 || all[0].Error != "" || !strings.Contains(all[1].Error, "not pinned") || pinned(1) {
		t.Errorf("%+v", all)
	}
	_, all = postTo(t, c.client, url(0)+"/_/purge", `{"patterns":["team/a:v1"]}`)
	if end := last(t, all); end.Images != 1 || end.Failed != 0 || len(imagesAt(t, c.client, url(1)).Images) != 0 {
		t.Errorf("%+v", all)
	}
}

// A pin that is refused, since what its tag means now is too large, leaves what was pinned by that name.
func TestARefusedPinLosesNoOther(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	up := upstreamtest.New(t)
	c := formCluster(t, 2, up, func(int) form { return form{settings: settings{defaults: "cache_max_size: 1m"}} })
	s := shelf{t, up, random(99, 50_000)}
	img := s.put("team/a", "v1", "amd64", 1)
	at := func(path string, header ...string) answer { return c.get(0, path, header...) }
	pullImage(t, at, "team/a", "v1", img)
	pin := func() told {
		_, all := postTo(t, c.client, "http://"+c.nodes[1].client+"/_/pin", `{"images":["`+up.Host()+`/team/a:v1"]}`)
		return last(t, all)
	}
	if end := pin(); end.Images != 1 {
		t.Fatalf("%+v", end)
	}
	layers := make([][]byte, 20) // for more than one order
	for i := range layers {
		layers[i] = random(uint64(i), 17_000)
	}
	pullImage(t, at, "team/a", "v1", up.PutImage("team/a", "v1", layers...))
	if end := pin(); end.Failed != 1 {
		t.Errorf("%+v", end)
	}
	for i := range 2 {
		for _, shard := range c.nodes[i].node.registries.Shards() {
			all := shard.Stock().Retained()
			if len(all) != 1 || len(all[0].Content) < 3 || all[0].Content[img.Manifest] == 0 {
				t.Errorf("at %d is pinned: %+v", i, all)
			}
		}
	}
}

// Verifying names what is wrong at any node, and removes it there.
func TestVerifyInAMesh(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	c := newCluster(t, 3)
	b := c.blob(300_000)
	for i := range 3 {
		c.pull(i, b)
	}
	url := "http://" + c.nodes[0].client + "/_/verify"
	_, all := postTo(t, c.client, url, `{}`)
	clean := last(t, all)
	if clean.Bad != 0 || clean.Failed != 0 || clean.Blobs < 2 || clean.Bytes != int64(clean.Blobs)*b.size {
		t.Errorf("%+v", all)
	}
	c.corrupt(2, b, 100)
	_, all = postTo(t, c.client, url, `{}`)
	k := slices.IndexFunc(all, func(l told) bool { return l.Digest != "" })
	if end := last(t, all); end.Bad != 1 || k < 0 || all[k].Digest != b.String() || all[k].Node != c.nodes[2].name || all[k].Error == "" || all[k].Registry != c.up.Host() {
		t.Errorf("%+v", all)
	}
	_, all = postTo(t, c.client, url, `{}`)
	if end := last(t, all); end.Bad != 0 || end.Blobs != clean.Blobs-1 {
		t.Errorf("%+v", all)
	}
	c.pull(2, b)
}

// A purge breaks no pull: neither one that comes from the registry, nor one from the disk.
func TestPurgeDuringPulls(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{})
	held, coming := random(1, 4<<20), random(2, 1<<20)
	one, two := up.PutBlob(repo, held), up.PutBlob(repo, coming)
	p.get(blobPath(one)).want(t, http.StatusOK)
	release := halve(up, two.String(), 1<<20)
	first, second := p.send(http.MethodGet, blobPath(one)), p.send(http.MethodGet, blobPath(two))
	_, all := postTo(t, p.client, p.url+"/_/purge", `{"patterns":["**"]}`)
	if end := last(t, all); end.Blobs != 1 || end.Failed != 0 {
		t.Errorf("%+v", all)
	}
	release()
	for want, resp := range map[*[]byte]*http.Response{&held: first, &coming: second} {
		if a := read(resp); a.err != nil || !bytes.Equal(a.body, *want) {
			t.Errorf("%d bytes of %d: %v", len(a.body), len(*want), a.err)
		}
	}
	if n := up.Count(http.MethodGet, one.String()); n != 1 {
		t.Errorf("the registry was asked %d times for what was open", n)
	}
}
