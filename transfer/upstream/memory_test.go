package upstream

import (
	"fmt"
	"testing"
)

func TestRepositoriesAreForgottenOneByOne(t *testing.T) {
	t.Parallel()
	c := newChallenges()
	c.remember("team/app", wanted{challenge: challenge{scheme: "basic"}})
	for i := range 2 * maxRepositories {
		c.remember(fmt.Sprintf("made/up%d", i), wanted{challenge: challenge{scheme: "bearer"}})
		if i%1000 == 0 { // in use, so it stays
			if ch, ok := c.recall("team/app"); !ok || ch.scheme != "basic" {
				t.Fatalf("a repository in use was forgotten after %d others", i)
			}
		}
	}
	if n := c.byRepo.Len(); n != maxRepositories {
		t.Errorf("%d repositories are remembered, want %d", n, maxRepositories)
	}
	if _, ok := c.recall(fmt.Sprintf("made/up%d", 2*maxRepositories-1)); !ok {
		t.Error("the last repository was forgotten")
	}
	c.forget("team/app")
	if _, ok := c.recall("team/app"); ok {
		t.Error("a forgotten challenge is recalled")
	}
}
