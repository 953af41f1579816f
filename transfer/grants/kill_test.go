package grants

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
)

// victimDir names the variable that makes the test binary a process to kill.
const victimDir = "OCI_PROXY_TEST_VICTIM"

// victim grants and revokes until it is killed. It prints the number of each round whose
// revocations are written down.
func victim(dir string) {
	s := OpenShard(dir, cache.Options{})
	var k int
	_, _ = fmt.Sscan(os.Getenv(victimDir+"_CYCLE"), &k)
	g := &Grants{}
	for i := 0; ; i++ {
		refused, lost, kept := victims(k, i)
		s.ledger.vouches(time.Millisecond, refused, lost, kept)
		for range 50 { // so that the file is long, and the kill comes while it is being written
			s.ledger.vouches(time.Millisecond, blob("noise", fmt.Sprint(k, i, time.Now().UnixNano())))
		}
		g.Revoke(request(s, refused), oci.BlobResource, &oci.Error{Kind: oci.Denied, Status: 403, By: oci.Registry, Relayed: true})
		g.Revoke(request(s, lost), oci.BlobResource, &oci.Error{Kind: oci.NotFound, Status: 404, By: oci.Registry, Relayed: true})
		fmt.Println(i)
	}
}

// victims returns the blobs of round i in cycle k.
func victims(k, i int) (refused, lost, kept oci.Ref) {
	return blob(fmt.Sprintf("refused-%d-%d", k, i), "x"), blob("lost", fmt.Sprint(k, i)), blob("kept", fmt.Sprint(k, i))
}

// request makes a request for ref to a shard on which its registry is private.
func request(s *Shard, ref oci.Ref) Request {
	return Request{Ref: ref, Site: Site{Private: true, StaleIfError: time.Hour, Shard: s}}
}

// killed runs a victim and kills it once it has printed n rounds.
func killed(t *testing.T, dir string, k, n int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+dir, fmt.Sprintf("%s_CYCLE=%d", victimDir, k))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for told := 0; lines.Scan(); {
		if told++; told == n {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait() // it was killed
}

// Once Revoke has returned, the revocation holds, whenever the process dies.
func TestRevocationsSurviveKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cycles := 12
	if testing.Short() {
		cycles = 3
	}
	torn := 0 // cycles in which the kill came during a write; then no grant counts
	for k := range cycles {
		n := 3 + 17*k%60
		killed(t, dir, k, n)
		s := start(t, dir, nil)
		kept := 0
		for i := range n {
			refused, lost, ok := victims(k, i)
			want(t, s.ledger, false, refused, lost)
			if s.ledger.counts(ok) {
				kept++
			}
		}
		if !s.MarkedPrivate(private) {
			t.Errorf("cycle %d: the registry is not private any more", k)
		}
		if kept == 0 {
			torn++
		} else if kept != n {
			t.Errorf("cycle %d: %d of %d grants are left", k, kept, n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if torn > cycles/2 {
		t.Errorf("in %d of %d cycles no grant was left", torn, cycles)
	}
}
