// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// The picture has one panel for each pair, and in it the bars of two kinds of
// tools: those that know the old image, and those that take any. Every panel
// has its own scale, because the pairs differ in size by a factor of ten.
const (
	width     = 900
	margin    = 24
	labelEnd  = 340 // where labels end and bars begin
	barMax    = 400
	barHeight = 16
	rowHeight = 24
	headRow   = 26
)

// Colours of light and dark mode; both have enough contrast with their background.
const style = `
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
.title { font-size: 18px; font-weight: 600; }
.pair { font-size: 14px; font-weight: 600; }
.quiet { fill: #59636e; font-size: 12px; }
.label { text-anchor: end; }
.bold { font-weight: 600; }
.ground { fill: #ffffff; stroke: #d1d9e0; }
.rule { stroke: #d1d9e0; }
.ours { fill: #0f7b6c; }
.peer { fill: #9aa7b4; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .quiet { fill: #9198a1; }
  .ground { fill: #0d1117; stroke: #3d444d; }
  .rule { stroke: #3d444d; }
  .ours { fill: #2fb8a0; }
  .peer { fill: #5c6773; }
}
`

// A canvas grows downwards.
type canvas struct {
	b strings.Builder
	y int
}

func (c *canvas) text(x int, class, s string) {
	c.b.WriteString(fmt.Sprintf(`<text x="%d" y="%d" class="%s">%s</text>`+"\n", x, c.y, class, escape(s)))
}

func escape(s string) string {
	var b strings.Builder
	// A strings.Builder does not fail.
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

// picture draws a report as SVG.
func picture(r *report) string {
	c := &canvas{y: 40}
	c.text(margin, "title", "Bytes a device downloads for an update")
	c.y += 20
	c.text(margin, "quiet", "Shorter is better. In brackets: the smallest of the other tools in the group = 1. Each panel has its own scale.")
	for i := range r.Pairs {
		c.panel(&r.Pairs[i])
	}
	height := c.y + margin
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" role="img" aria-label="Bytes a device downloads for an update, by tool">`+
		"\n<style>%s</style>\n"+`<rect x="0.5" y="0.5" width="%d" height="%d" rx="8" class="ground"/>`+"\n%s</svg>\n",
		width, height, style, width-1, height-1, c.b.String())
}

func (c *canvas) panel(s *summary) {
	c.y += 22
	fmt.Fprintf(&c.b, `<line x1="%d" x2="%d" y1="%d" y2="%[3]d" class="rule"/>`+"\n", margin, width-margin, c.y)
	c.y += headRow
	c.text(margin, "pair", s.Title)
	if rows := s.of(full); len(rows) > 0 {
		best := rows[0]
		fmt.Fprintf(&c.b, `<text x="%d" y="%d" class="quiet" text-anchor="end">%s</text>`+"\n", width-margin, c.y,
			escape(fmt.Sprintf("image %.0f MB, whole image compressed %.1f MB (%s)", float64(s.Size)/1e6, float64(best.Bytes)/1e6, short(best.Label))))
	}
	longest := int64(1)
	for _, k := range []kind{known, unknown} {
		for _, r := range s.of(k) {
			longest = max(longest, r.Bytes)
		}
	}
	for _, k := range []struct {
		kind  kind
		title string
	}{{known, "the old image is known"}, {unknown, "any old image"}} {
		rows := s.of(k.kind)
		if len(rows) == 0 {
			continue
		}
		c.y += headRow
		c.text(margin, "quiet", k.title)
		best := reference(rows)
		for i, r := range rows {
			if i > 0 {
				c.y += rowHeight
			}
			c.bar(r, best, longest)
		}
		c.y += 6
	}
}

func (c *canvas) bar(r result, best, longest int64) {
	class, bold := "peer", ""
	if r.Ours {
		class, bold = "ours", " bold"
	}
	c.text(labelEnd-10, "label"+bold, short(r.Label))
	length := max(2, float64(r.Bytes)/float64(longest)*barMax)
	fmt.Fprintf(&c.b, `<rect x="%d" y="%d" width="%.1f" height="%d" rx="3" class="%s"/>`+"\n", labelEnd, c.y-barHeight+4, length, barHeight, class)
	c.text(labelEnd+int(length)+8, strings.TrimSpace(bold), fmt.Sprintf("%.2f MB (%s)", float64(r.Bytes)/1e6, ratio(r.Bytes, best)))
}

// short leaves out what the picture has no room to explain.
func short(label string) string {
	return strings.NewReplacer("block-hash-index, ", "", "zstd -19, the whole image", "zstd -19").Replace(strings.TrimSuffix(label, "*"))
}
