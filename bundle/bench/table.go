// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A kind is what a tool supposes of the device.
type kind string

const (
	known   kind = "known"   // it has exactly the old image
	unknown kind = "unknown" // it has some image; what is found there is used
	full    kind = "full"    // it has nothing
)

var kinds = []struct {
	kind  kind
	title string
}{
	{known, "a device whose old image is known when the update is built"},
	{unknown, "a device with any older image: it looks up blocks or chunks"},
	{full, "a device with nothing: the whole image"},
}

// A result is one row: what one tool made of one pair.
type result struct {
	Pair    string `json:"pair"`
	Tool    string `json:"tool"`
	Version string `json:"version"`
	Label   string `json:"label"`
	Kind    kind   `json:"kind"`
	Ours    bool   `json:"ours,omitempty"`
	// Bytes is what a device downloads.
	Bytes int64 `json:"bytes"`
	usage
	Apply *usage `json:"apply,omitempty"`
	// Run is the run that measured it.
	Run string `json:"run"`
}

// A report is what a run has found out.
type report struct {
	Run     string       `json:"run"`
	Machine string       `json:"machine"`
	Pairs   []summary    `json:"pairs"`
	Install installTable `json:"install"`
}

// A summary is a pair and its results.
type summary struct {
	Name     string   `json:"name"`
	Title    string   `json:"title"`
	Size     int64    `json:"size"` // of the new image
	Upgraded int      `json:"upgraded_packages"`
	Results  []result `json:"results"`
}

// of returns the results of a kind, the smallest download first.
func (s *summary) of(k kind) []result {
	var list []result
	for _, r := range s.Results {
		if r.Kind == k {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b result) int { return cmp.Or(cmp.Compare(a.Bytes, b.Bytes), cmp.Compare(a.Label, b.Label)) })
	return list
}

// run is the latest run that measured a row. Rows of an earlier one are marked:
// times compare only within a run, and nobody compares them across pairs.
func (s *summary) run() string {
	latest := ""
	for _, r := range s.Results {
		latest = max(latest, r.Run)
	}
	return latest
}

// reference is what the rows of a kind are compared with: the smallest that is
// not ours, or 0 if there is none.
func reference(rows []result) int64 {
	for _, r := range rows {
		if !r.Ours {
			return r.Bytes
		}
	}
	return 0
}

func ratio(n, reference int64) string {
	if reference == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(n)/float64(reference))
}

func megabytes(n int64) string { return fmt.Sprintf("%.2f", float64(n)/1e6) }

var header = []string{"tool", "MB", "best peer = 1", "build s", "CPU s", "peak MB", "apply MB/s", "apply peak MB"}

// cells are the columns of a row.
func (r result) cells(run string, best, size int64) []string {
	label := r.Label
	if r.Run != run {
		label += " †"
	}
	c := []string{label, megabytes(r.Bytes), ratio(r.Bytes, best), fmt.Sprintf("%.0f", r.Seconds), fmt.Sprintf("%.0f", r.CPU),
		fmt.Sprintf("%.0f", float64(r.Peak)/1e6), "", ""}
	if r.Apply != nil {
		c[6], c[7] = fmt.Sprintf("%.0f", float64(size)/1e6/r.Apply.Seconds), fmt.Sprintf("%.0f", float64(r.Apply.Peak)/1e6)
	}
	return c
}

// text is the table for a terminal.
func (p *report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Run of %s on %s.\n", p.Run, p.Machine)
	for _, s := range p.Pairs {
		fmt.Fprintf(&b, "\n%s: %s MB, %d packages upgraded\n", s.Title, megabytes(s.Size), s.Upgraded)
		lines := [][]string{header}
		for _, k := range kinds {
			rows := s.of(k.kind)
			if len(rows) == 0 {
				continue
			}
			lines = append(lines, []string{"for " + k.title})
			for _, r := range rows {
				lines = append(lines, r.cells(s.run(), reference(rows), s.Size))
			}
		}
		b.WriteString(align(lines))
	}
	if len(p.Install.Rows) > 0 {
		b.WriteString("\n" + p.Install.title() + "\n")
		lines := [][]string{installHeader}
		for _, i := range p.Install.Rows {
			lines = append(lines, i.cells(p.Install))
		}
		b.WriteString(align(lines))
	}
	b.WriteString("\n" + strings.Join(p.footnotes(), "\n") + "\n")
	return b.String()
}

// align pads the columns; a line of a single cell is a heading.
func align(lines [][]string) string {
	var widths []int
	for _, line := range lines {
		for i, c := range line {
			if len(widths) <= i {
				widths = append(widths, 0)
			}
			if len(line) > 1 {
				widths[i] = max(widths[i], len([]rune(c)))
			}
		}
	}
	var b strings.Builder
	for _, line := range lines {
		if len(line) == 1 {
			b.WriteString("  " + line[0] + "\n")
			continue
		}
		text := ""
		for i, c := range line {
			pad := strings.Repeat(" ", widths[i]-len([]rune(c)))
			if i == 0 {
				text += "    " + c + pad
			} else {
				text += "  " + pad + c
			}
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	return b.String()
}

// markdown is the table for docs/benchmark.md.
func (p *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s.\n", p.Machine)
	for _, s := range p.Pairs {
		fmt.Fprintf(&b, "\n### %s\n\nThe image has %s MB; %d packages were upgraded.\n\n", s.Title, megabytes(s.Size), s.Upgraded)
		b.WriteString(line(header) + "|---|" + strings.Repeat("--:|", len(header)-1) + "\n")
		for _, k := range kinds {
			rows := s.of(k.kind)
			if len(rows) == 0 {
				continue
			}
			b.WriteString("| *for " + k.title + "* |" + strings.Repeat(" |", len(header)-1) + "\n")
			for _, r := range rows {
				cells := r.cells(s.run(), reference(rows), s.Size)
				if r.Ours {
					cells[0], cells[1], cells[2] = "**"+cells[0]+"**", "**"+cells[1]+"**", "**"+cells[2]+"**"
				}
				b.WriteString(line(cells))
			}
		}
	}
	if len(p.Install.Rows) > 0 {
		b.WriteString("\n### " + p.Install.title() + "\n\n")
		b.WriteString(line(installHeader) + "|---|" + strings.Repeat("--:|", len(installHeader)-1) + "\n")
		for _, i := range p.Install.Rows {
			b.WriteString(line(i.cells(p.Install)))
		}
	}
	for _, n := range p.footnotes() {
		b.WriteString("\n" + strings.Replace(n, "*", "\\*", 1) + "\n")
	}
	return b.String()
}

func line(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }

func (p *report) footnotes() []string {
	notes := []string{"* Counted from the images, not downloaded."}
	for _, s := range p.Pairs {
		if slices.ContainsFunc(s.Results, func(r result) bool { return r.Run != s.run() }) {
			notes = append(notes, "† From an earlier run than the other rows of its table: compare its bytes, not its times.")
			break
		}
	}
	return append(notes, p.Install.Notes...)
}
