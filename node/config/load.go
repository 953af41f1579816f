package config

// A loader makes a Config of the file, the environment over it and the defaults
// under it. Its reader puts the values in, its checker applies the rules between
// them.
type loader struct {
	*reader
	config  *Config
	entries []entry // of registries, in the file's order
}

// An entry is a registry on its way into the config.
type entry struct {
	Registry
	path string
	at   place
}

// parse is Parse, with a choice of the keys to refuse.
func parse(file string, text []byte, environ []string, gaps []gap) (*Config, error) {
	return load(file, text, environ, gaps, false)
}

// load is parse. finding says that this is Find, which skips the files that a node
// reads again.
func load(file string, text []byte, environ []string, gaps []gap, finding bool) (*Config, error) {
	report := &report{file: file, places: map[string]place{}}
	l := &loader{reader: newReader(report, environment(environ)), config: &Config{}}
	l.fill(text)
	c := &checker{report: report, config: l.config, entries: l.entries, environ: l.environ, finding: finding}
	c.check()
	c.refuse(gaps)
	if len(report.problems) > 0 {
		report.problems.sort()
		return nil, report.problems
	}
	return l.config, nil
}

// fill reads the file's text and the environment.
func (l *loader) fill(text []byte) {
	preset(l.reader, l.config, configKeys)
	preset(l.reader, &l.config.Defaults, registryKeys)
	fill(l.reader, l.config, configKeys, decode(l.report, text), "", "")
	l.fillFromEnvironment()
	l.fillRegistries()
}
