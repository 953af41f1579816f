package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"oci-proxy/node/config"
)

const (
	// statusWidth is how many columns status takes at most.
	statusWidth = 100
	// leastName is how many columns there are for a name at least.
	leastName = 8
)

// writeStatus writes a report for people.
func writeStatus(w io.Writer, c clusterStatus) error {
	versions := c.versions()
	head := fmt.Sprintf("%s: %d of %d members up", c.Address, c.Up, len(c.Members))
	if len(versions) == 1 {
		head += ", version " + versions[0]
	}
	if c.Ring != "" {
		head += ", ring " + c.Ring
	}
	var text strings.Builder
	fmt.Fprintln(&text, cut(head, statusWidth))
	rows := [][]string{{"NODE", "STATE", "UP", "SHARE", "BLOBS", "HELD", "BOUND", "GETS", "HITS"}}
	for _, m := range c.Members {
		rows = append(rows, m.row(c.Degraded))
	}
	share := 0.0
	for _, m := range c.Members {
		share += m.Share
	}
	total := append([]string{"total", fmt.Sprintf("%d up", c.Up), "", fmt.Sprintf("%.1f%%", 100*share)}, c.Total.columns()...)
	for _, line := range table(append(rows, total)) {
		fmt.Fprintln(&text, line)
	}
	if len(c.Degraded) > 0 {
		fmt.Fprintln(&text, "degraded:")
	}
	for _, d := range c.Degraded {
		for _, line := range wrapped(d.Of+": "+d.Reason, statusWidth, "  ") {
			fmt.Fprintln(&text, line)
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// row is a member's line of the table.
func (m memberStatus) row(degraded []degradation) []string {
	name, state, up := m.Name, m.State, "-"
	if m.Self {
		name += " *"
	}
	switch {
	case state != "active":
	case !m.Healthy && !m.Self:
		state = "quarantined"
	default:
		for _, d := range degraded {
			if d.Of == m.Name {
				state = "degraded"
			}
		}
	}
	if m.UptimeSeconds > 0 {
		up = duration(time.Duration(m.UptimeSeconds) * time.Second)
	}
	figures := []string{"-", "-", "-", "-", "-"}
	if m.Answered {
		figures = m.columns()
	}
	return append([]string{cmp.Or(name, "-"), state, up, fmt.Sprintf("%.1f%%", 100*m.Share)}, figures...)
}

// columns are figures as the table has them.
func (f figuresStatus) columns() []string {
	bound, ratio := "none", "-"
	if f.Bound > 0 {
		bound = config.FormatSize(f.Bound)
	}
	all := f.Hits + f.PeerHits + f.Misses
	if all > 0 {
		ratio = fmt.Sprintf("%.1f%%", 100*float64(f.Hits+f.PeerHits)/float64(all))
	}
	return []string{count(f.Blobs), config.FormatSize(f.Bytes), bound, count(all), ratio}
}

// count writes a number in at most seven columns.
func count(n int64) string {
	if n < 10_000_000 {
		return strconv.FormatInt(n, 10)
	}
	f, unit := float64(n)/1e6, 0
	for ; f >= 9999 && unit < len("MGTP")-1; unit++ {
		f /= 1e3
	}
	return fmt.Sprintf("%.1f%c", f, "MGTP"[unit])
}

// table lays rows out in columns two spaces apart, in at most statusWidth columns: the
// first one gives way.
func table(rows [][]string) (lines []string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	rest := statusWidth
	for _, w := range width[1:] {
		rest -= 2 + w
	}
	width[0] = min(width[0], max(rest, leastName))
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			cell = cut(cell, width[i])
			line.WriteString(cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
		}
		lines = append(lines, strings.TrimRight(line.String(), " "))
	}
	return lines
}

// cut shortens text to width columns: its middle goes, as names differ at either end.
func cut(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	head := (width - 1) / 2
	return string(runes[:head]) + "…" + string(runes[len(runes)-(width-1-head):])
}

// wrapped breaks text into lines of at most width columns, each behind indent, those after
// the first twice. A word that is longer has a line of its own.
func wrapped(text string, width int, indent string) (lines []string) {
	line := indent
	for word := range strings.FieldsSeq(text) {
		if strings.TrimSpace(line) != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), indent+indent
		}
		if strings.TrimSpace(line) != "" {
			line += " "
		}
		line += cut(word, width-2*len(indent))
	}
	return append(lines, line)
}
