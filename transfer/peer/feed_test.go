package peer

import (
	"net/http"
	"strings"
	"testing"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

func TestWhatIsAskedAboutFeedingArrives(t *testing.T) {
	t.Parallel()
	ref := oci.Ref{Registry: "ghcr.io", Repository: "org/app"}
	many := strings.Repeat("id ", maxNot+3) + "last"
	for _, f := range []mesh.Feed{
		{},
		{Asks: true},
		{Asks: true, Zone: "Köln 1", Seat: "ABC.1", Not: "a b"},
		{Asks: true, Here: true, Seat: "ABC.1"},
		{By: "ABC.2"},
		{Asks: true, Not: many},
	} {
		q, err := parseQuery(query{Ref: ref, Terms: mesh.Terms{Feed: f}, came: 7}.encode())
		if f.Not == many {
			f.Not = strings.Repeat("id ", maxNot-1) + "last"
		}
		if err != nil || q.Feed != f || q.came != 7 {
			t.Errorf("%+v came as %+v, %d, %v", f, q.Feed, q.came, err)
		}
	}
	for _, wrong := range []string{
		"seat=a%20b", "seat=" + strings.Repeat("a", maxSeat+1), "by=%00", "zone=" + strings.Repeat("z", maxZone+1), "came=-1", "came=x",
		"seat=a&seat=b", "feed=1&feed=here", "not=%00", "not=" + strings.Repeat("a%20", maxNot+1),
	} {
		if _, err := parseQuery("registry=ghcr.io&repository=org/app&" + wrong); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

func TestWhoFeedsIsTold(t *testing.T) {
	t.Parallel()
	asks, here := mesh.Feed{Asks: true}, mesh.Feed{Asks: true, Here: true}
	for _, test := range []struct {
		told  oci.Feeding
		asked mesh.Feed
		taken bool
	}{
		{oci.Feeding{}, mesh.Feed{}, true},
		{oci.Feeding{}, asks, true},
		{oci.Feeding{Seat: "T.1"}, asks, true},
		{oci.Feeding{Seat: "T.1"}, here, true},
		{oci.Feeding{Seat: "T.1", Feeder: "id", By: "T.2"}, asks, true},
		{oci.Feeding{Seat: "T.1", Feeder: "id", By: "T.2"}, here, false},
		{oci.Feeding{Seat: "T.1", Feeder: "id", By: "T.2"}, mesh.Feed{}, false},
		{oci.Feeding{Seat: "T.1"}, mesh.Feed{}, false},
		{oci.Feeding{Feeder: "id", By: "T.2"}, asks, false},
		{oci.Feeding{Seat: "T.1", Feeder: "id"}, asks, false},
		{oci.Feeding{Seat: strings.Repeat("T", maxSeat+1)}, asks, false},
		{oci.Feeding{Seat: "T.1", Feeder: "id", By: "T 2"}, asks, false},
	} {
		h := http.Header{}
		setFeeding(h, test.told)
		got, err := readFeeding(h, test.asked)
		if (err == nil) != test.taken || err == nil && got != test.told {
			t.Errorf("%+v, asked %+v, came as %+v, %v", test.told, test.asked, got, err)
		}
	}
}
