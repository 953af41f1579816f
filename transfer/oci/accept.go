package oci

import (
	"slices"
	"strings"
)

// takesAny is the member of an Accept list that takes any type.
const takesAny = "*/*;q=0.1"

// Acceptable returns the Accept list that upstream is sent for a client's: all types if
// the client takes any type, or lists as well as images, as those do that pull; else
// those of ManifestTypes that it named. What a tag means may depend on it, so it is part
// of the tag's key.
func Acceptable(client []string) []string {
	takes := func(types ...string) bool {
		return slices.ContainsFunc(types, func(t string) bool { return slices.Contains(client, t) })
	}
	if len(client) == 0 || takes("*/*", "application/*") || takes(typeIndex, typeDockerList) && takes(typeImage, typeDocker) {
		return ManifestTypes
	}
	var named []string
	for _, t := range ManifestTypes {
		if slices.Contains(client, t) {
			named = append(named, t)
		}
	}
	if named == nil {
		return ManifestTypes
	}
	return named
}

// Accepts reports whether a client with that Accept list takes a manifest of that type
// (as KeptType). One that names no type of manifests takes them all.
func Accepts(client []string, mediaType string) bool {
	shown := strings.ToLower(bare(ShownType(mediaType)))
	known := slices.ContainsFunc(client, isKnown)
	return !known || slices.Contains(client, shown) || slices.Contains(client, "*/*") || slices.Contains(client, "application/*") || slices.Contains(client, takesAny)
}

// AcceptLists are all lists that Acceptable returns, the one of all types first.
func AcceptLists() [][]string {
	named := ManifestTypes[:len(ManifestTypes)-1]
	lists := [][]string{ManifestTypes}
	for set := 1; set < 1<<len(named); set++ {
		var list []string
		for i, t := range named {
			if set&(1<<i) != 0 {
				list = append(list, t)
			}
		}
		if len(Acceptable(list)) == len(list) {
			lists = append(lists, list)
		}
	}
	return lists
}
