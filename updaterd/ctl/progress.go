// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/updaterd/updaterd/updaterd/client"
)

// lineInterval is the least time between two plain lines of one stage.
const lineInterval = 5 * time.Second

// A display shows how a job comes on.
type display interface {
	// show is called for each status, the last one included.
	show(s *client.JobStatus, now time.Time)
	// end is called once, before the last lines are printed.
	end()
}

// follow shows a job until it has ended or waits for a person.
func (c *call) follow(ctx context.Context, job *client.Job) (*client.JobStatus, error) {
	var d display
	width, terminal := c.terminal()
	switch {
	case c.json:
		d = &jsonLines{w: c.out, start: c.start}
	case terminal:
		d = &bar{w: c.out, width: func() int {
			if now, ok := c.terminal(); ok {
				width = now
			}
			return width
		}}
	default:
		d = &plainLines{w: c.out}
	}
	var last *client.JobStatus
	for status, err := range job.Progress(ctx) {
		if err != nil {
			d.end()
			if ctx.Err() != nil {
				c.hint(`the job goes on; run "updaterctl watch" to see it again, "updaterctl cancel" to end it`)
				return nil, fmt.Errorf("watch the job: interrupted: %w", context.Canceled)
			}
			return nil, err
		}
		d.show(status, time.Now())
		last = status
	}
	d.end()
	return last, c.ended(last)
}

// ended prints the closing lines of a job and makes its end an error or none.
func (c *call) ended(s *client.JobStatus) error {
	if !c.json {
		fmt.Fprintf(c.out, "fetched %d bytes (%s) in %.1f seconds\n", s.Fetched, size(s.Fetched), time.Since(c.start).Seconds())
	}
	if err := s.Err(); err != nil {
		return &jobError{outcome: s.Outcome, err: err}
	}
	switch {
	case s.Finished():
		c.say("done: %s is confirmed", release(s))
	case s.State == client.PendingReboot && c.has("reboot"):
		c.say("%s is installed, the device reboots into its trial", release(s))
	case s.State == client.PendingReboot:
		c.say("%s is installed, its trial begins with the next start", release(s))
		c.hint(`run "updaterctl reboot"`)
	case s.State == client.Installed:
		c.say("%s is installed, the device still starts the old system", release(s))
		c.hint(`run "updaterctl activate", then "updaterctl reboot"`)
	}
	return nil
}

// say prints a line for people.
func (c *call) say(format string, args ...any) {
	if !c.json {
		fmt.Fprintln(c.out, printable(fmt.Sprintf(format, args...)))
	}
}

func release(s *client.JobStatus) string {
	if s.Version == "" {
		return s.Ref
	}
	return s.Version
}

// jobLine is what --json prints for each change of a job.
type jobLine struct {
	client.JobStatus
	Seconds float64 `json:"seconds"`
}

type jsonLines struct {
	w     io.Writer
	start time.Time
}

func (l *jsonLines) show(s *client.JobStatus, now time.Time) {
	e := json.NewEncoder(l.w)
	e.SetEscapeHTML(false)
	e.Encode(jobLine{*s, float64(now.Sub(l.start).Milliseconds()) / 1000})
}

func (l *jsonLines) end() {}

// plainLines is for logs and pipes: a line for each new stage, and one every
// few seconds while it lasts.
type plainLines struct {
	w     io.Writer
	shown time.Time
	what  string
	said  string
}

func (l *plainLines) show(s *client.JobStatus, now time.Time) {
	if s.Message != l.said && !s.Finished() {
		if l.said = s.Message; s.Message != "" {
			fmt.Fprintln(l.w, printable(s.Message))
		}
	}
	what := doing(s)
	if s.Finished() || what == l.what && now.Sub(l.shown) < lineInterval {
		return
	}
	l.what, l.shown = what, now
	fmt.Fprintln(l.w, strings.Join(append([]string{what}, figures(s)...), ", "))
}

func (l *plainLines) end() {}

// doing names what a job is at.
func doing(s *client.JobStatus) string {
	what := printable(string(s.State))
	if s.Stage != "" && (s.State == client.Downloading || s.State == client.Installing) {
		what = printable(s.Stage)
	}
	if s.Paused {
		what += " (paused)"
	}
	return what
}

// figures are bytes, rate and time left, as far as they are known.
func figures(s *client.JobStatus) []string {
	var f []string
	if s.State != client.Downloading && s.State != client.Installing {
		return nil
	}
	if s.Total > 0 {
		f = append(f, fmt.Sprintf("%s of %s (%d %%)", size(s.Done), size(s.Total), percent(s)))
	}
	if s.Rate > 0 && !s.Paused {
		f = append(f, size(s.Rate)+"/s")
	}
	if s.TimeLeft > 0 && !s.Paused {
		f = append(f, clock(s.TimeLeft)+" left")
	}
	return f
}

// percent is rounded down: 100 is said when all is done, not before.
func percent(s *client.JobStatus) int {
	if s.Total == 0 || s.Done >= s.Total {
		return 100
	}
	return int(float64(s.Done) / float64(s.Total) * 100)
}

// bar draws over one line of a terminal.
type bar struct {
	w     io.Writer
	width func() int
	what  string
	said  string
	drawn bool
}

func (b *bar) show(s *client.JobStatus, _ time.Time) {
	what := doing(s)
	if s.Finished() || b.drawn && what != b.what {
		b.end() // leave what is finished on the screen
	}
	if s.Finished() {
		return
	}
	if s.Message != b.said {
		if b.said = s.Message; s.Message != "" {
			b.end()
			fmt.Fprintln(b.w, printable(s.Message))
		}
	}
	b.what, b.drawn = what, true
	fmt.Fprintf(b.w, "\r%s\x1b[K", drawBar(s, b.width()-1))
}

func (b *bar) end() {
	if b.drawn {
		fmt.Fprintln(b.w)
		b.drawn = false
	}
}

// drawBar is a line of at most width columns; where room is short, the bar
// goes first, then the time, the rate and the bytes.
func drawBar(s *client.JobStatus, width int) string {
	head := fmt.Sprintf("%-9s", doing(s))
	f := figures(s)
	for len(f) > 0 && len(head)+len(strings.Join(f, "  "))+2 > width {
		f = f[:len(f)-1]
	}
	tail := strings.Join(f, "  ")
	line := head
	const frame = len("  []  ")
	if room := min(width-len(head)-len(tail)-frame, 40); room >= 8 && s.Total > 0 && tail != "" {
		full := room * percent(s) / 100
		body := strings.Repeat("=", full)
		if full < room {
			body += ">" + strings.Repeat(" ", room-full-1)
		}
		line += " [" + body + "]"
	}
	if tail != "" {
		line += "  " + tail
	}
	if r := []rune(line); len(r) > width && width > 0 {
		return string(r[:width])
	}
	return strings.TrimRight(line, " ")
}
