package cluster

import (
	"context"
	"encoding/json"
	"time"

	"oci-proxy/node/membership"
)

// An Examination is what another member found when it was asked.
type Examination struct {
	Member *membership.Member
	Found  json.RawMessage // nil if Err is set
	Asked  time.Time       // by this node's clock, as Came
	Came   time.Time
	Err    error // why there is no answer
}

// Examine asks all other members of c one question, at most 4 KiB, for Config.Examine of
// theirs. It takes examineTime at most. Those that are down, or of a version that does not
// know the question, are in the result with an error.
func Examine(ctx context.Context, c *Cluster, question []byte) (all []Examination) {
	if c.network == nil {
		return nil
	}
	for _, one := range fanFor(ctx, c.network.members.View(), limits{examineTime, fanWidth}, func(ctx context.Context, m *membership.Member) (e Examination, err error) {
		e.Asked = time.Now()
		e.Found, err = c.network.client.Examine(ctx, m.ID, question)
		e.Came = time.Now()
		return e, err
	}) {
		e := one.value
		e.Member, e.Err = one.member, one.err
		all = append(all, e)
	}
	return all
}
