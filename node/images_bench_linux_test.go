package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/upstreamtest"
)

// stockUp puts images into a node's shard: each of a manifest, a config and eight layers,
// of which one is shared by all. It returns how many blobs there are then.
func stockUp(b *testing.B, p *proxy, images int) int {
	b.Helper()
	registry := p.up.Host()
	shard := p.node.registries.shard(registry)
	put := func(repository, mediaType, text string) digest.Digest {
		d := digest.FromString(text)
		if _, err := shard.PutOf(b.Context(), d, registry, repository, mediaType, []byte(text)); err != nil {
			b.Fatal(err)
		}
		return d
	}
	for i := range images {
		repository := fmt.Sprintf("team-%d/app-%d", i%50, i%500)
		config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","n":%d}`, i)
		m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[`, upstreamtest.TypeManifest, upstreamtest.TypeConfig, put(repository, "", config), len(config))
		for k := range 9 {
			layer := fmt.Sprintf("layer %d of %d", k, i)
			if k == 0 {
				layer = "the layer of all"
			} else {
				m += ","
			}
			m += fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, upstreamtest.TypeLayer, put(repository, "", layer), len(layer))
		}
		d := put(repository, upstreamtest.TypeManifest, m+"]}")
		shard.SetTag(cache.Tag{Key: fmt.Sprintf("%s %s v%d %s", registry, repository, i, upstreamtest.TypeManifest), Digest: d, MediaType: upstreamtest.TypeManifest, Checked: time.Now()})
	}
	return len(shard.Blobs())
}

// benchImages is how many images make about 100,000 blobs; a tenth in a short run.
func benchImages() int {
	if testing.Short() {
		return 1_000
	}
	return 10_000
}

// What operators ask for at a node that holds 100,000 blobs. The first list after a start
// reads all manifests.
func BenchmarkOperator(b *testing.B) {
	up := upstreamtest.New(b)
	dir := b.TempDir()
	s := settings{dir: dir, defaults: "cache_max_size: 0"}
	p := newProxy(b, up, s)
	b.Logf("%d blobs are held", stockUp(b, p, benchImages()))
	p.close()
	p = newProxy(b, up, s)
	for _, shard := range p.node.registries.Shards() {
		if err := shard.Listed(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	list := func() {
		var l imageList
		if a := p.get("/_/images"); a.StatusCode != http.StatusOK || json.Unmarshal(a.body, &l) != nil || len(l.Images) != benchImages() {
			b.Fatalf("%d, %d images", a.StatusCode, len(l.Images))
		}
	}
	once := func(name string, do func()) {
		b.Run(name, func(b *testing.B) {
			began, spent := time.Now(), processor()
			do()
			took, used := time.Since(began), processor()-spent
			for b.Loop() { // it can't be repeated
			}
			b.ReportMetric(took.Seconds(), "s/once")
			b.ReportMetric(used.Seconds(), "cpu-s/once")
		})
	}
	once("first ls", list)
	b.Run("ls", func(b *testing.B) {
		began, n := processor(), 0
		for b.Loop() {
			list()
			n++
		}
		b.ReportMetric((processor()-began).Seconds()/float64(n), "cpu-s/op")
	})
	for path, body := range map[string]string{"purge dry run": `{"patterns":["*/team-1*/**"],"dry_run":true}`} {
		once(path, func() { b.Logf("%+v", last2(postTo(b, p.client, p.url+"/_/purge", body))) })
	}
	once("verify", func() { b.Logf("%+v", last2(postTo(b, p.client, p.url+"/_/verify", `{}`))) })
	once("purge", func() { b.Logf("%+v", last2(postTo(b, p.client, p.url+"/_/purge", `{"patterns":["**"]}`))) })
}

// last2 is the last line of an answer.
func last2(_ int, all []told) told { return all[len(all)-1] }

// processor is how much time of the processor this process has used, the test's own
// client included.
func processor() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it can't fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
