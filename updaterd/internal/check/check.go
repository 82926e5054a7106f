// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// A Check looks at one thing. It returns what it found, or what is wrong.
type Check struct {
	Name string
	Look func() (string, error)
}

// The levels of a result.
const (
	OK      = "ok"
	Warning = "warn"
	Failure = "fail"
)

// A Result is what a check came to.
type Result struct {
	Name  string `json:"name"`
	Level string `json:"level"`
	Text  string `json:"text"`
	// Cure is what to do, unless Level is OK.
	Cure string `json:"cure,omitempty"`
}

// A fault is what is wrong, and what cures it.
type fault struct {
	err  error
	cure string
	mild bool
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// Fault is an error without whose cure the device does not update as it should.
func Fault(cure, format string, args ...any) error {
	return &fault{err: fmt.Errorf(format, args...), cure: cure}
}

// Doubt is a warning.
func Doubt(cure, format string, args ...any) error {
	return &fault{err: fmt.Errorf(format, args...), cure: cure, mild: true}
}

// Run makes all checks.
func Run(list []Check) []Result {
	results := make([]Result, 0, len(list))
	for _, c := range list {
		r := Result{Name: c.Name, Level: OK}
		found, err := c.Look()
		if r.Text = found; err != nil {
			r.Level, r.Text = Failure, err.Error()
			var f *fault
			if errors.As(err, &f) {
				r.Cure = f.cure
				if f.mild {
					r.Level = Warning
				}
			}
			if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
				r.Cure = "run it as root"
			}
		}
		results = append(results, r)
	}
	return results
}

// Print writes a line for each result, and one for each cure.
func Print(w io.Writer, results []Result) {
	for _, r := range results {
		fmt.Fprintf(w, "%-5s %s: %s\n", map[string]string{OK: "ok", Warning: "warn", Failure: "FAIL"}[r.Level], r.Name, r.Text)
		if r.Cure != "" {
			fmt.Fprintf(w, "      cure: %s\n", r.Cure)
		}
	}
}

// Count is how many results have a level.
func Count(results []Result, level string) (n int) {
	for _, r := range results {
		if r.Level == level {
			n++
		}
	}
	return n
}
