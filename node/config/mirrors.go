package config

import "slices"

// checkMirrors makes sure that a registry and its mirrors are places of their own, and makes
// a registry private if one of its mirrors is: what a mirror has for those with a login would
// otherwise be had by all under the registry's name.
func (k *checker) checkMirrors() {
	shut := map[string]bool{} // by host: what its own entry says
	for _, e := range k.entries {
		shut[e.Host] = e.Private
	}
	for i := range k.entries {
		e := &k.entries[i]
		for n, m := range e.Mirrors {
			path := index(e.path+".mirrors", n)
			at := k.at(path, e.path+".mirrors")
			switch {
			case m.Host == "": // reported already
			case m.Host == e.Host:
				k.problem(at, path, "is the registry itself; remove it")
			case slices.ContainsFunc(e.Mirrors[:n], func(other Mirror) bool { return other.Host == m.Host }):
				k.problem(at, path, "is given twice; keep one of them")
			case shut[m.Host] && !e.Public:
				e.Private = true
			}
		}
	}
}

// mirrors warns of mirrors that help less than one may think.
func (d *doubter) mirrors() {
	for _, e := range d.entries {
		implied := len(e.Logins()) == 0 && !d.isSet(e.path+".private")
		for n, m := range e.Mirrors {
			path := index(e.path+".mirrors", n)
			at := d.at(path, e.path+".mirrors")
			own, _ := d.config.Registry(m.Host)
			switch {
			case e.Private && implied && own.Private:
				d.warn(at, path, "has a login or is private, so %s counts as private: its mirrors deliver only what it vouches for, and tell no tags; if they hold nothing else, set private: false for it", e.Host)
			case e.Private && m.Tags:
				d.warn(at, path, "is trusted for tags in vain: %s is private, and nobody else can say what its tags mean", e.Host)
			case own.Offline:
				d.warn(at, path, "is never asked: its own entry says offline: true")
			}
		}
	}
}
