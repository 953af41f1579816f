package peer

import (
	"context"
	"errors"
	"testing"
)

// A member answers a question about itself with what it finds.
func TestExamination(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	r := newRig(t, setup{examine: func(_ context.Context, question []byte) (any, error) {
		asked <- string(question)
		return map[string]int{"wrong": 2}, nil
	}})
	found, err := r.Examine(t.Context(), "b", []byte(`{"registry":"reg.example.com"}`))
	if err != nil || string(found) != `{"wrong":2}` {
		t.Errorf("found %s, %v", found, err)
	}
	if got := <-asked; got != `{"registry":"reg.example.com"}` {
		t.Errorf("it was asked %s", got)
	}
}

// One that finds nothing out, or can't be asked, is told as failed. It does not become
// unhealthy by that.
func TestExaminationFails(t *testing.T) {
	t.Parallel()
	for name, examine := range map[string]func(context.Context, []byte) (any, error){
		"can't be asked": nil,
		"finds nothing":  func(context.Context, []byte) (any, error) { return nil, errors.New("canary-51") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{examine: examine})
			found, err := r.Examine(t.Context(), "b", []byte("{}"))
			if err == nil || found != nil {
				t.Errorf("found %s, %v", found, err)
			}
			if !r.Healthy("b") {
				t.Error("it is quarantined")
			}
		})
	}
	if _, err := newRig(t, setup{}).Examine(t.Context(), "b", make([]byte, maxOffer+1)); err == nil {
		t.Error("a question of any size is answered")
	}
}
