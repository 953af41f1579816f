package ring_test

import (
	"fmt"
	"sync/atomic"

	"oci-proxy/ring"
)

// A node swaps its ring when the members change, and looks up each request in it.
func Example() {
	var current atomic.Pointer[ring.Ring]

	r, err := ring.New([]ring.Member{
		{ID: "anna", Weight: ring.Units(100 << 30)},
		{ID: "bert", Weight: ring.Units(100 << 30)},
		{ID: "cleo", Weight: ring.Units(400 << 30)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	current.Store(r)

	const digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	owners, n := current.Load().Owners(digest)
	for _, m := range owners[:n] {
		fmt.Println("ask", m.ID)
	}

	// The owner leaves for good.
	former := current.Load()
	next, err := former.Next([]ring.Member{{ID: "anna", Weight: 1}, {ID: "bert", Weight: 1}})
	if err != nil {
		fmt.Println(err) // the former ring stays in use
		return
	}
	current.Store(next)

	fmt.Println("now ask", current.Load().Owner(digest).ID)
	fmt.Println("it may still be at", former.Owner(digest).ID)
	fmt.Printf("cleo had %.0f %% of the keys\n", 100*former.Share("cleo"))

	// Output:
	// ask cleo
	// ask anna
	// ask bert
	// now ask anna
	// it may still be at cleo
	// cleo had 68 % of the keys
}
