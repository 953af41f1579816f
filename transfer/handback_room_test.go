package transfer

import "testing"

// An owner that does not come back takes no other's room, and none is lost.
func TestAnOwnerTakesNoOthersRoom(t *testing.T) {
	t.Parallel()
	h := newHandBack(nil)
	defer h.close()
	entered := 0
	for range maxHandBack {
		if h.enter("away") {
			entered++
		}
	}
	if entered != maxOfOne || !h.enter("late") {
		t.Errorf("room for %d things of an owner that is away", entered)
	}
	h.leave("late")
	for range entered {
		h.leave("away")
	}
	for i := range maxHandBack {
		if !h.enter(string(rune('a' + i/maxOfOne))) {
			t.Fatalf("no room for number %d of several owners", i)
		}
	}
	if h.enter("z") {
		t.Error("there is room without an end")
	}
}
