package main

// A row is one kind of work for several servers. The first is what the others are compared to.
type row struct {
	name, what string
	servers    []string // of kinds
	load
}

// Names of servers that rows compare.
var (
	hits = []string{"nginx", "node", "olareg", "distribution"}
	puts = []string{"nginx cache", "node", "distribution"}
	tiny = []string{"nginx cache, 40 MB", "node, 40 MB"}
	cold = []string{"registry", "nginx cache", "node", "distribution"}
	mesh = []string{"registry", "three nodes", "three nodes, plain"}
)

// rows are all that is measured. A load without a count lasts as long as -for says.
var rows = []row{
	{"blob-1g-1", "hits of 1 GiB, 1 client", hits, load{clients: 1, ask: one(blob, 1<<30)}},
	{"blob-1g-8", "hits of 1 GiB, 8 clients", hits, load{clients: 8, ask: one(blob, 1<<30)}},
	{"blob-1g-64", "hits of 1 GiB, 64 clients", hits, load{clients: 64, ask: one(blob, 1<<30)}},
	{"blob-4k-32", "hits of 4 KiB, 32 clients", hits, load{clients: 32, ask: one(blob, 4<<10)}},
	{"blob-4k-1", "hits of 4 KiB, 1 client", hits, load{clients: 1, ask: one(blob, 4<<10)}},
	{"blob-16k-32", "hits of 16 KiB, 32 clients", hits, load{clients: 32, ask: one(blob, 16<<10)}},
	{"blob-64k-32", "hits of 64 KiB, 32 clients", hits, load{clients: 32, ask: one(blob, 64<<10)}},
	{"blob-256k-32", "hits of 256 KiB, 32 clients", hits, load{clients: 32, ask: one(blob, 256<<10)}},
	{"digest-get", "manifest by digest, GET, 32 clients", hits, load{clients: 32, ask: one(manifest, 2<<10)}},
	{"digest-head", "manifest by digest, HEAD, 32 clients", hits, load{clients: 32, head: true, ask: one(manifest, 2<<10)}},
	{"tag-get", "manifest by tag, checked upstream, GET, 32 clients", hits, load{clients: 32, ask: one(tag, 2<<10)}},
	{"tag-head", "manifest by tag, checked upstream, HEAD, 32 clients", hits, load{clients: 32, head: true, ask: one(tag, 2<<10)}},
	{"put-4k", "new blobs of 4 KiB through the server, 32 clients", puts, load{clients: 32, count: 4000, ask: fresh(4 << 10)}},
	{"evict-4k", "the same at a bound of 40 MB", tiny, load{clients: 32, count: 16000, ask: fresh(4 << 10)}},
	{"miss-1", "a new blob of 256 MiB at 200 MB/s, 1 client", cold, load{clients: 1, count: 1, pace: 200e6, ask: fresh(256 << 20)}},
	{"miss-32", "the same new blob of 256 MiB at 200 MB/s, 32 clients", cold, load{clients: 32, count: 32, pace: 200e6, ask: shared(256 << 20)}},
	{"mesh-herd", "the same new blob of 256 MiB at 200 MB/s, 12 clients over three nodes", mesh, load{clients: 12, count: 12, fresh: true, pace: 200e6, ask: shared(256 << 20), at: func(n int) int { return n % 3 }}},
	{"mesh-image", "a new image of 1 GiB, 16 layers, 3 at a time through one of three nodes", mesh, load{clients: 3, count: 16, fresh: true, ask: image, at: func(int) int { return 0 }}},
	{"mesh-next", "the same image then, through the second and the third node", mesh, load{clients: 3, count: 32, fresh: true, first: true, ask: image, at: func(n int) int { return 1 + n/16 }}},
	{"miss-far", "a new blob of 256 MiB of a registry 50 ms away, 1 client", cold, load{clients: 1, count: 1, delay: 50, ask: fresh(256 << 20)}},
}
