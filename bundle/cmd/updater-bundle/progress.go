// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/term"
)

// progress returns a callback that keeps one line of standard error up to date,
// and a function that ends the line. On anything but a terminal both do nothing.
func (c *command) progress(verb string) (report func(done, total int64), end func()) {
	f, ok := c.Stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
	start := time.Now()
	var last time.Time
	report = func(done, total int64) {
		now := time.Now()
		if done < total && now.Sub(last) < 100*time.Millisecond {
			return
		}
		last = now
		left := ""
		if past := now.Sub(start); past > time.Second && done > 0 {
			rate := float64(done) / past.Seconds()
			left = fmt.Sprintf(", %s/s, %v left", size(int64(rate)), time.Duration(float64(total-done)/rate*float64(time.Second)).Round(time.Second))
		}
		fmt.Fprintf(f, "\r%s %3d %% of %s%s\x1b[K", verb, done*100/max(total, 1), size(total), left)
	}
	return report, func() {
		if !last.IsZero() {
			fmt.Fprint(f, "\r\x1b[K")
		}
	}
}

// size is n for people.
func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 10<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
