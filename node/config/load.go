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

// terms say how strictly a config is read.
type terms struct {
	gaps    []gap                          // keys to refuse
	finding bool                           // this is Find, which skips the files that a node reads again
	disk    func(dir string) (disk, error) // tells of the disk that a directory is on; nil: disks are not looked at
}

// parse is Parse, with a choice of the keys to refuse.
func parse(file string, text []byte, environ []string, gaps []gap) (*Config, error) {
	c, _, err := load(file, text, environ, terms{gaps: gaps})
	return c, err
}

// load makes a Config.
func load(file string, text []byte, environ []string, t terms) (*Config, Places, error) {
	report := &report{file: file, places: map[string]place{}}
	l := &loader{reader: newReader(report, environment(environ)), config: &Config{}}
	l.fill(text)
	c := &checker{report: report, config: l.config, entries: l.entries, environ: l.environ, finding: t.finding}
	c.check()
	c.refuse(t.gaps)
	(&doubter{report, l.config, c.entries, l.environ}).doubt(t.disk)
	report.problems.sort()
	if report.problems.wrong() {
		return nil, Places{}, report.problems
	}
	l.config.Warnings = report.problems
	return l.config, placesOf(report, c.entries), nil
}

// fill reads the file's text and the environment.
func (l *loader) fill(text []byte) {
	preset(l.reader, l.config, configKeys)
	preset(l.reader, &l.config.Defaults, registryKeys)
	fill(l.reader, l.config, configKeys, decode(l.report, text), "", "")
	l.fillFromEnvironment()
	l.fillRegistries()
}
