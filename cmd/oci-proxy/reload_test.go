package main

import (
	"os"
	"strings"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// reload prints what took effect and what needs a restart, and fails on a bad config.
func TestReloadSaysWhatTookEffect(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	file, addr := nodeConfig(t, up, t.TempDir(), "")
	p := start(t, addr, "serve", "-c", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(more string) {
		if err := os.WriteFile(file, append(text, more...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for more, want := range map[string]string{
		"": "nothing has changed\n",
		"\nverify_interval: 1h\naccess: [{deny: ['**']}]\nqueue_timeout: 5s\n": "access took effect\nqueue_timeout took effect\nverify_interval needs a restart\n",
	} {
		write("")
		if got := call(t.Context(), "reload", "-addr", addr); got.status != exitDone {
			t.Errorf("%+v", got)
		}
		write(more)
		if got := call(t.Context(), "reload", "-addr", addr); got.status != exitDone || got.out != want {
			t.Errorf("%+v, want %q\n%s", got, want, p.log.String())
		}
	}
	write("\nprot: 80\n")
	if got := call(t.Context(), "reload", "-addr", addr); got.status != exitFailed || !strings.Contains(got.err, "prot: unknown key (did you mean port?)") {
		t.Errorf("%+v", got)
	}
}
