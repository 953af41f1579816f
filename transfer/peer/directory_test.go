package peer

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
)

// What a member tells of its blobs is heard as said by itself, and it hears whether it is to
// tell all again.
func TestTellDirectory(t *testing.T) {
	t.Parallel()
	type told struct {
		sender string
		bytes  int
	}
	heard := make(chan told, 1)
	r := newRig(t, setup{directory: func(sender string, message []byte) (bool, error) {
		heard <- told{sender, len(message)}
		return len(message) > 1, nil
	}})
	for n, again := range map[int]bool{1: false, maxTold: true} {
		got, follows, err := TellDirectory(t.Context(), r.Client, "b", make([]byte, n), 10*time.Second)
		if err != nil || got != again || !follows {
			t.Errorf("%d bytes: %v, %v, %v", n, got, follows, err)
		}
		if one := <-heard; one != (told{"a", n}) {
			t.Errorf("heard %+v", one)
		}
	}
	if _, _, err := TellDirectory(t.Context(), r.Client, "b", make([]byte, maxTold+1), 10*time.Second); err == nil {
		t.Error("a message of any size is sent")
	}
	if _, err := r.Examine(t.Context(), "b", make([]byte, maxOffer+1)); err == nil {
		t.Error("other requests may be as large")
	}
}

// A member of an earlier version, which follows no partitions, is known by its answer; and it reads
// the answers of this one.
func TestTellDirectoryOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	type earlier struct {
		Again bool `json:"again,omitempty"`
	}
	for _, again := range []bool{false, true} {
		r := newRig(t, setup{})
		to := r.server.table["POST directory"]
		to.answer = func(w *reply, _ *call) error { return sendJSON(w, earlier{again}) }
		r.server.table["POST directory"] = to
		if got, follows, err := TellDirectory(t.Context(), r.Client, "b", []byte("x"), 10*time.Second); err != nil || got != again || follows {
			t.Errorf("%v, %v, %v, want %v and that it follows nothing", got, follows, err, again)
		}
		var read earlier
		if answer, err := json.Marshal(heardDirectory{Again: again, Follows: true}); err != nil || json.Unmarshal(answer, &read) != nil || read.Again != again {
			t.Errorf("it reads %s as %+v: %v", answer, read, err)
		}
	}
}

// A member that does not understand, or keeps no directory, is not quarantined for that.
func TestTellDirectoryFails(t *testing.T) {
	t.Parallel()
	for name, directory := range map[string]func(string, []byte) (bool, error){
		"keeps none":      nil,
		"can't be parsed": func(string, []byte) (bool, error) { return false, errors.New("malformed") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{directory: directory})
			for range 5 {
				if again, follows, err := TellDirectory(t.Context(), r.Client, "b", []byte("x"), 10*time.Second); err == nil || again || follows {
					t.Errorf("%v, %v, %v", again, follows, err)
				}
			}
			if !r.Healthy("b") {
				t.Error("it is quarantined")
			}
		})
	}
}
