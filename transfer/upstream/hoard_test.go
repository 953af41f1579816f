package upstream

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"oci-proxy/transfer/oci"
)

// A registry of anybody's asks for a pass with a long challenge, and its token server gives long
// tokens, one for each repository that a client makes up.
func TestAStrangersPassesTakeLittleMemory(t *testing.T) {
	const repositories, most = 1000, 4 << 20
	for name, long := range map[string]int{"a challenge": 200 << 10, "a token": 0} {
		c := newClient(t)
		r, err := c.registry("evil.example.com")
		if err != nil {
			t.Fatal(err)
		}
		trip := tripFunc(func(req *http.Request) (*http.Response, error) {
			switch {
			case req.URL.Path == "/token" && long > 0:
				return reply(500, ""), nil
			case req.URL.Path == "/token":
				return reply(200, `{"expires_in":86400,"token":"`+strings.Repeat("t", maxTokenBytes)+`"}`), nil
			case req.Header.Get("Authorization") != "":
				return reply(404, "", "Docker-Distribution-Api-Version", "registry/2.0"), nil
			}
			return reply(401, "", "WWW-Authenticate", `Bearer realm="https://evil.example.com/token",service=`+strings.Repeat("s", long)), nil
		})
		r.net.own, r.net.elsewhere = trip, trip
		before := heap()
		for i := range repositories {
			ref := hello("evil.example.com")
			ref.Repository = fmt.Sprint("made/up-", i)
			if _, err := opened(oci.Hurry(t.Context()), c, ref); err == nil {
				t.Fatal("it has such a blob")
			}
		}
		if more := heap() - before; more > most {
			t.Errorf("%s: %d MiB are held", name, more>>20)
		}
		runtime.KeepAlive(c)
	}
}

// heap returns how many bytes are in use.
func heap() int64 {
	var m runtime.MemStats
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
