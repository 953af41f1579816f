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
