package oci

// A Feeding says how a member is to get a large blob that other members want too: see
// transfer/feed. The zero value says that whoever gives this answer sends the bytes.
type Feeding struct {
	Seat   string // what the member is known by to the one who decides, "" if it is not
	Feeder string // the id of the member that has the bytes for it; "": who gives this answer
	By     string // the feeder's seat
}
