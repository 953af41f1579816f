package image

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
)

// A Platform is what an image is for (OCI image spec, "OCI Image Index Specification").
type Platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
	OSVersion    string `json:"os.version,omitempty"`
}

// String returns the platform as os/architecture[/variant].
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// fits reports whether a manifest for p will do for one that wants the platform want.
func (p Platform) fits(want Platform) bool {
	return p.OS == want.OS && p.Architecture == want.Architecture && (want.Variant == "" || p.Variant == want.Variant)
}

// Platforms are those that are wanted; empty: all.
type Platforms []Platform

// All are all platforms.
var All Platforms

// Own is this machine's architecture, with Linux: images run in containers.
func Own() Platforms { return Platforms{{OS: "linux", Architecture: runtime.GOARCH}} }

// ParsePlatforms parses a list of os/architecture[/variant], joined by commas, or "all".
// An empty text is Own.
func ParsePlatforms(text string) (Platforms, error) {
	if text == "" {
		return Own(), nil
	}
	return Choose(strings.Split(text, ","))
}

// Choose parses platforms, each os/architecture[/variant] or "all". None stands for Own.
func Choose(texts []string) (Platforms, error) {
	if len(texts) == 0 {
		return Own(), nil
	}
	if slices.Contains(texts, "all") {
		return All, nil
	}
	var out Platforms
	for _, one := range texts {
		p, err := ParsePlatform(strings.TrimSpace(one))
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// ParsePlatform parses os/architecture[/variant].
func ParsePlatform(text string) (Platform, error) {
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 || strings.Contains("/"+text+"/", "//") {
		return Platform{}, fmt.Errorf("%q is not a platform; use for example linux/amd64 or linux/arm/v7", text)
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// attests is the annotation by which buildkit names the manifest that an attestation of
// the same index is about.
const attests = "vnd.docker.reference.digest"

// choose returns the manifests of an index that are for the platforms, and the
// attestations about them. A wanted platform that the index lacks is an error; an index
// that names no platforms at all is taken whole.
func (p Platforms) choose(all []Descriptor) (out []Descriptor, err error) {
	var names []string
	for _, d := range all {
		if d.Platform != nil && d.Platform.OS != "unknown" {
			names = append(names, d.Platform.String())
		}
	}
	if len(p) == 0 || len(names) == 0 {
		return all, nil
	}
	about := map[string]bool{}
	for _, want := range p {
		found := false
		for _, d := range all {
			if d.Platform != nil && d.Platform.fits(want) {
				found = true
				if !about[d.Digest.String()] {
					about[d.Digest.String()] = true
					out = append(out, d)
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("it has no manifest for %s, only for %s", want, strings.Join(names, ", "))
		}
	}
	for _, d := range all {
		if about[d.Annotations[attests]] && !about[d.Digest.String()] {
			out = append(out, d)
		}
	}
	return out, nil
}
