package cluster

import "time"

// tellPauses is of how many pauses the members are told at a time. Of more they hear nothing:
// a registry that limits tells each of them itself.
const tellPauses = 16

// TellPause tells the members of c that a registry asks to be left alone for that time. It
// does not wait for that.
func TellPause(c *Cluster, registry string, d time.Duration) {
	if c.router == nil {
		return
	}
	select {
	case c.telling <- struct{}{}:
	default:
		return
	}
	if !c.reports.life.Go(func() {
		defer func() { <-c.telling }()
		for _, p := range c.router.Members() {
			if err := c.network.client.Pause(c.reports.life.Context(), p.ID(), registry, d); err != nil {
				c.cfg.Log.Debug("a member was not told that a registry asks to wait", "peer", p.Name(), "registry", registry, "error", err)
			}
		}
	}) {
		<-c.telling
	}
}
