package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"runtime/debug"
)

// What .ci/release sets with -ldflags=-X: it builds outside of the repository, where the
// toolchain can't record them. "" in any other build.
var releaseVersion, releaseCommit string

// A built describes how the program was built.
type built struct{ version, commit, goVersion string }

// build returns what the release set, or else what the Go toolchain recorded when it built
// the program.
func build() built {
	b := recorded()
	b.version = cmp.Or(releaseVersion, b.version)
	b.commit = cmp.Or(releaseCommit, b.commit)
	return b
}

// recorded returns what the Go toolchain recorded.
func recorded() built {
	b := built{version: "dev", commit: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.goVersion = info.GoVersion
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.commit = s.Value
		}
	}
	return b
}

// version prints the version, the commit and the Go version.
func version(_ context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("version", flag.ContinueOnError)
	if err := parse(fl, args, s); err != nil {
		return err
	}
	b := build()
	fmt.Fprintf(s.out, "oci-proxy %s commit %s %s\n", b.version, b.commit, b.goVersion)
	return nil
}
