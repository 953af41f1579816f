package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// maxNodes bounds how much of a file is looked through for images.
const maxNodes = 1 << 20

// Images returns the images that a file names, each once: a compose file or Kubernetes
// manifests (any YAML or JSON, of several documents, in which images stand under the key
// "image"), or a list with one on each line, where # begins a remark.
func Images(text []byte) ([]string, error) {
	found, err := imagesInYAML(text)
	if err == nil && len(found) > 0 {
		return checkImages(found)
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if strings.ContainsAny(line, " \t") || strings.HasSuffix(line, ":") {
			if err == nil {
				err = fmt.Errorf("%q is not the name of an image", line)
			}
			return nil, fmt.Errorf("it is no list of images, and no YAML with images: %w", err)
		}
		found = append(found, line)
	}
	if len(found) == 0 {
		return nil, errors.New("it names no image")
	}
	return checkImages(found)
}

// checkImages leaves out what is named again, and refuses what can be no image.
func checkImages(all []string) (out []string, err error) {
	for _, name := range all {
		if strings.Contains(name, "$") {
			return nil, fmt.Errorf("the image %q has a variable in it: put its value there first (docker compose config, kustomize build)", name)
		}
		if _, err := parseImage(name); err != nil {
			return nil, fmt.Errorf("%q %w", name, err)
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// imagesInYAML returns the texts under the key "image".
func imagesInYAML(text []byte) (found []string, err error) {
	in := yaml.NewDecoder(bytes.NewReader(text))
	for left := maxNodes; ; {
		var doc yaml.Node
		if err := in.Decode(&doc); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, err
		}
		todo := []*yaml.Node{&doc}
		for len(todo) > 0 {
			n := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if left--; left < 0 {
				return nil, fmt.Errorf("it has more than %d values", maxNodes)
			}
			if n.Kind == yaml.MappingNode {
				found = append(found, imagesOf(n)...)
			}
			for _, child := range slices.Backward(n.Content) { // so that they come in the file's order
				todo = append(todo, child)
			}
		}
	}
}

// imagesOf returns the texts under the key "image" of one mapping. An alias stands for
// what it names; elsewhere that is looked at where it is written.
func imagesOf(n *yaml.Node) (found []string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		v := n.Content[i+1]
		if v.Kind == yaml.AliasNode {
			v = v.Alias
		}
		if n.Content[i].Value == "image" && v.Kind == yaml.ScalarNode && v.Value != "" {
			found = append(found, v.Value)
		}
	}
	return found
}

// imageName matches what may be the name of an image. What it means is seen when it is
// pulled.
var imageName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]*$`)

func parseImage(s string) (string, error) {
	if !imageName.MatchString(s) {
		return "", errors.New("is not the name of an image; use for example alpine:3 or ghcr.io/org/app:v1")
	}
	return s, nil
}

var platformName = regexp.MustCompile(`^(all|[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?)$`)

func parsePlatform(s string) (string, error) {
	if !platformName.MatchString(s) {
		return "", errors.New("is not a platform; use for example linux/amd64, linux/arm/v7 or all")
	}
	return s, nil
}

// minSchedule is how often images may be pulled at most: each round asks the registry.
const minSchedule = time.Minute

func parseSchedule(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d < minSchedule {
		err = fmt.Errorf("is less than %s", minSchedule)
	}
	return d, err
}
