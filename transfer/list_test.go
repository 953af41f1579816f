package transfer_test

import (
	"bytes"
	"errors"

	"oci-proxy/transfer"
	"oci-proxy/transfer/oci"
)

// list gets the page of the tags after last through the rig.
func (r *rig) list(last string) (body string, way oci.Provenance, err error) {
	query := oci.Query("")
	if last != "" {
		query = oci.Query("last=" + last)
	}
	return read(r.Tags(r.t.Context(), r.tag(""), query))
}

// read reads and closes a page.
func read(list *transfer.List, err error) (body string, way oci.Provenance, _ error) {
	if err != nil {
		return "", oci.Provenance{}, err
	}
	var b bytes.Buffer
	err = errors.Join(list.Send(&b), list.Close())
	return b.String(), list.Provenance, err
}
