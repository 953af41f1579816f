package flight

import (
	"time"

	"oci-proxy/transfer/oci"
)

// A Download is what can be told of a flight under way.
type Download struct {
	Ref    oci.Ref // what the request named that began it
	Began  time.Time
	Done   int64          // bytes that have come
	Size   int64          // bytes; -1: not known
	Aboard int            // requests that wait for it or read from it
	From   oci.Provenance // who delivers, as far as known
}

// Downloads lists the flights that can be boarded, in no order.
func (f *Flights) Downloads() []Download {
	f.mu.Lock()
	flights, aboard := make([]*Flight, 0, len(f.flights)), make([]int, 0, len(f.flights))
	for _, e := range f.flights {
		flights, aboard = append(flights, e.Flight), append(aboard, e.aboard)
	}
	f.mu.Unlock()
	out := make([]Download, len(flights))
	for i, fl := range flights {
		out[i] = Download{Ref: fl.Ref(), Began: fl.began, Done: fl.ingest.Offset(), Size: fl.ingest.Size(), Aboard: aboard[i], From: fl.Provenance()}
	}
	return out
}
