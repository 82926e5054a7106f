// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
)

// reference makes what a person types into what the daemon understands. A file
// is looked for here, where the person is, before the daemon is asked.
func reference(arg string) (string, error) {
	if scheme, _, ok := strings.Cut(arg, "://"); ok {
		switch strings.ToLower(scheme) {
		case "http", "https":
			return arg, nil
		}
		return "", usagef("%q: only http and https URLs, and files, can be installed", arg)
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return "", usagef("find file %q: %v", arg, err)
	}
	info, err := os.Stat(path)
	switch {
	case os.IsNotExist(err):
		return "", usagef("there is no file %s", path)
	case err != nil && !os.IsPermission(err): // the daemon may see what we may not
		return "", usagef("look at file %s: %v", path, err)
	case err == nil && !info.Mode().IsRegular():
		return "", usagef("%s is not a regular file", path)
	}
	return path, nil
}

// printable keeps what strangers wrote, in a bundle or on a server, from
// steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// size writes bytes for people.
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1023.95 && unit < 4 { // 1023.95 would be shown as 1024.0
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[unit])
}

// clock writes seconds as m:ss or h:mm:ss.
func clock(s uint64) string {
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

func date(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// known is s, or a word for its absence.
func known(s string) string {
	if s == "" {
		return "unknown"
	}
	return printable(s)
}

// rows writes pairs of a name and a value in two columns.
func rows(w io.Writer, pairs [][2]string) {
	width := 0
	for _, p := range pairs {
		width = max(width, len(p[0]))
	}
	for _, p := range pairs {
		fmt.Fprintf(w, "%-*s  %s\n", width, p[0], printable(p[1]))
	}
}

// printJSON writes v indented, as one document.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// wrap breaks text into lines of at most width bytes, each begun with indent.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(indent)+len(line)+1+len(word) > width {
			b.WriteString(indent + line + "\n")
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		b.WriteString(indent + line + "\n")
	}
	return b.String()
}
