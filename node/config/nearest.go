package config

import "strings"

// nearest returns the candidate that text was most likely meant to be, or "". A
// path elsewhere whose last level is exactly text counts too: `cache_dir` at the
// top was meant to be `defaults.cache_dir`.
func nearest(text string, here, elsewhere []string) string {
	if best := closest(text, here); best != "" {
		return best
	}
	for _, path := range elsewhere {
		if path[strings.LastIndexByte(path, '.')+1:] == text {
			return path
		}
	}
	return ""
}

// closest returns the candidate that the fewest typing mistakes turn into text,
// or "" if that takes more than one mistake in three letters.
func closest(text string, candidates []string) string {
	const tooLong = 64 // no key is that long; this keeps a hostile file cheap
	if len(text) > tooLong {
		return ""
	}
	best, fewest := "", max(1, len(text)/3)+1
	for _, c := range candidates {
		if d := mistakes(strings.ToLower(text), strings.ToLower(c)); d < fewest {
			best, fewest = c, d
		}
	}
	return best
}

// mistakes counts the letters that are missing, added, changed or swapped with a
// neighbour between a and b (optimal string alignment distance).
func mistakes(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			change := row[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			next[j] = min(change, row[j]+1, next[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
