// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/updaterd/updaterd/updaterd/client"
)

// play shows a download of 100 s, with four changes a second, then its end.
func play(d display) {
	at := time.Unix(1700000000, 0)
	for i := range uint64(401) {
		d.show(&client.JobStatus{State: client.Downloading, Stage: "download", Done: i << 18, Total: 400 << 18, Rate: 1 << 20, TimeLeft: (400 - i) / 4}, at)
		at = at.Add(250 * time.Millisecond)
	}
	d.show(&client.JobStatus{State: client.Installing, Stage: "install", Total: 1 << 30}, at)
	d.show(&client.JobStatus{State: client.Installing, Stage: "install", Total: 1 << 30, Paused: true}, at)
	d.show(&client.JobStatus{State: client.Idle, Outcome: client.Success}, at)
	d.end()
}

func TestPlainLinesAreFew(t *testing.T) {
	var out bytes.Buffer
	play(&plainLines{w: &out})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 23 { // one at 0, 5, …, 100 s, one for each of the two changes after
		t.Errorf("%d lines:\n%s", len(lines), out.String())
	}
	if strings.ContainsAny(out.String(), "\r\x1b") {
		t.Error("a plain line steers the terminal")
	}
	if lines[1] != "download, 5.0 MiB of 100.0 MiB (5 %), 1.0 MiB/s, 1:35 left" {
		t.Errorf("second line: %s", lines[1])
	}
	if lines[22] != "install (paused), 0 B of 1.0 GiB (0 %)" {
		t.Errorf("last line: %s", lines[22])
	}
}

func TestBarStaysOnItsLine(t *testing.T) {
	var out bytes.Buffer
	play(&bar{w: &out, width: func() int { return 80 }})
	// One line is left for each stage, and the last thing is the end of a line.
	if n := strings.Count(out.String(), "\n"); n != 3 || !strings.HasSuffix(out.String(), "\n") {
		t.Errorf("%d lines:\n%q", n, out.String())
	}
	for _, draw := range strings.Split(out.String(), "\r")[1:] {
		text, _, ok := strings.Cut(draw, "\x1b[K")
		if !ok || len(text) > 79 {
			t.Errorf("drew %q", draw)
		}
	}
	half := drawBar(&client.JobStatus{State: client.Downloading, Stage: "download", Done: 50, Total: 100, Rate: 2048, TimeLeft: 90}, 79)
	if half != "download  [===========>          ]  50 B of 100 B (50 %)  2.0 KiB/s  1:30 left" {
		t.Errorf("%q", half)
	}
	narrow := drawBar(&client.JobStatus{State: client.Downloading, Stage: "download", Done: 50, Total: 100, Rate: 2048, TimeLeft: 90}, 40)
	if narrow != "download   50 B of 100 B (50 %)" {
		t.Errorf("%q", narrow)
	}
}

func TestBarFitsAnyTerminal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &client.JobStatus{
			State: rapid.SampledFrom([]client.State{client.Downloading, client.Installing, client.Trial, "\x1b[2J"}).Draw(t, "state"),
			Stage: rapid.String().Draw(t, "stage"),
			Done:  rapid.Uint64().Draw(t, "done"), Total: rapid.Uint64().Draw(t, "total"),
			Rate: rapid.Uint64().Draw(t, "rate"), TimeLeft: rapid.Uint64().Draw(t, "left"), Paused: rapid.Bool().Draw(t, "paused"),
		}
		width := rapid.IntRange(1, 200).Draw(t, "width")
		line := drawBar(s, width)
		if n := utf8.RuneCountInString(line); n > width {
			t.Fatalf("%d columns of %d: %q", n, width, line)
		}
		if strings.ContainsAny(line, "\x1b\r\x00") {
			t.Fatalf("steers the terminal: %q", line)
		}
		if p := percent(s); p < 0 || p > 100 || p == 100 && s.Done < s.Total && s.Total < 1<<50 {
			t.Fatalf("%d %% of %d/%d", p, s.Done, s.Total)
		}
	})
}

func TestJSONLinesAreLines(t *testing.T) {
	var out bytes.Buffer
	play(&jsonLines{w: &out, start: time.Unix(1700000000, 0)})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 404 || !strings.HasSuffix(lines[4], `"seconds":1}`) {
		t.Errorf("%d lines, %s", len(lines), lines[4])
	}
}

func TestSizeAndClock(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 3 << 20: "3.0 MiB", 5 << 30: "5.0 GiB", 1<<64 - 1: "16384.0 PiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
	for s, want := range map[uint64]string{0: "0:00", 59: "0:59", 61: "1:01", 3599: "59:59", 3600: "1:00:00", 7322: "2:02:02"} {
		if got := clock(s); got != want {
			t.Errorf("clock(%d) = %s, want %s", s, got, want)
		}
	}
	if got := printable("a\x1b[31mb\u202e\nc\x00"); got != "a\uFFFD[31mb\uFFFD\nc\uFFFD" {
		t.Errorf("%q", got)
	}
}

func TestExitCodes(t *testing.T) {
	refused := &client.Error{Name: client.NoSpace}
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("plain"), 1},
		{usagef("x"), 2},
		{&client.Error{Name: client.Unreachable}, 3},
		{fmt.Errorf("outer: %w", refused), 5},
		{fmt.Errorf("outer: %w", context.Canceled), 130},
		{&jobError{client.Failed, refused}, 1},
		{&jobError{client.Failed, &client.Error{Name: client.BadArgument}}, 1},
		{&jobError{client.Failed, &client.Error{Name: client.Network}}, 6},
		{&jobError{client.RolledBack, &client.Error{Name: client.Internal}}, 7},
		{&jobError{client.WasCancelled, &client.Error{Name: client.Internal}}, 8},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

// What a job waits for is said once, whichever way it is shown.
func TestWaitingIsSaid(t *testing.T) {
	for name, show := range map[string]func(*bytes.Buffer) display{
		"plain lines": func(b *bytes.Buffer) display { return &plainLines{w: b} },
		"bar":         func(b *bytes.Buffer) display { return &bar{w: b, width: func() int { return 80 }} },
	} {
		var out bytes.Buffer
		d := show(&out)
		for i, message := range []string{"", "no\x1blink", "no\x1blink", "", "no\x1blink", "other"} {
			d.show(&client.JobStatus{State: client.Downloading, Stage: "download", Done: uint64(i), Total: 10, Message: message}, time.Unix(1700000000, 0))
		}
		d.show(&client.JobStatus{State: client.Idle, Outcome: client.Failed, Message: "the end"}, time.Unix(1700000001, 0))
		d.end()
		lines := strings.Split(out.String(), "\n")
		count := func(text string) (n int) {
			for _, line := range lines {
				if line == printable(text) {
					n++
				}
			}
			return n
		}
		if count("no\x1blink") != 2 || count("other") != 1 || count("the end") != 0 || strings.Contains(out.String(), "no\x1b") {
			t.Errorf("%s:\n%q", name, out.String())
		}
	}
}
