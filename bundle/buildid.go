// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	// scanStep is the smallest block of the file systems that are searched.
	scanStep = 1 << 10
	// scanWindow is how much of an os-release is read; the file is far smaller.
	scanWindow = 4 << 10
)

// Identify reads an image from start to end and returns its digest, its size
// and the build id of the os-release in it. The build id is empty unless
// exactly one is found: a compressed file system hides it, and more than one
// leaves open which is meant.
func Identify(ctx context.Context, r io.ReaderAt, size int64) (Source, error) {
	if size < 1 {
		return Source{}, fmt.Errorf("identify image: it is empty")
	}
	hash := sha256.New()
	var ids buildIDs
	w := io.MultiWriter(hash, &ids)
	buf := make([]byte, 1<<20)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return Source{}, fmt.Errorf("identify image: %w", err)
		}
		part := buf[:min(int64(len(buf)), size-at)]
		if _, err := io.ReadFull(io.NewSectionReader(r, at, int64(len(part))), part); err != nil {
			return Source{}, fmt.Errorf("identify image: read at %d: %w", at, err)
		}
		w.Write(part) // neither a hash nor a scan fails
		at += int64(len(part))
	}
	return Source{Digest: Digest(hash.Sum(nil)), Size: size, BuildID: ids.result()}, nil
}

// buildIDs is an io.Writer that looks for os-release texts in an image. Files
// begin at the start of a block, so it looks at each block's start only.
type buildIDs struct {
	rest  []byte // not looked at yet; begins at the start of a block
	found []string
}

func (s *buildIDs) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	for len(s.rest) >= scanWindow {
		n := (len(s.rest) - scanWindow) / scanStep * scanStep
		for at := 0; at <= n; at += scanStep {
			s.look(s.rest[at:][:scanWindow])
		}
		s.rest = append(s.rest[:0], s.rest[n+scanStep:]...)
	}
	return len(p), nil
}

// result is the one build id of all that was written, or "".
func (s *buildIDs) result() string {
	for at := 0; at < len(s.rest); at += scanStep {
		s.look(s.rest[at:])
	}
	s.rest = nil
	if len(s.found) != 1 {
		return ""
	}
	return s.found[0]
}

func (s *buildIDs) look(window []byte) {
	id, ok := osReleaseBuildID(window)
	if ok && !slices.Contains(s.found, id) {
		s.found = append(s.found, id)
	}
}

// osReleaseBuildID returns BUILD_ID if b begins with the text of an os-release,
// which is KEY=value lines with an ID among them, up to a NUL or the first
// line that is something else.
func osReleaseBuildID(b []byte) (id string, ok bool) {
	if !strings.Contains(upper+"#\n", string(b[:1])) {
		return "", false
	}
	text, _, ended := bytes.Cut(b, []byte{0})
	hasID := false
	for len(text) > 0 {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole && !ended {
			break // cut off by the window
		}
		text = rest
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, value, found := strings.Cut(string(line), "=")
		if !found || key == "" || strings.Trim(key, upper+digits+"_") != "" {
			break
		}
		switch key {
		case "ID":
			hasID = true
		case "BUILD_ID":
			id = unquote(value)
		}
	}
	return id, hasID && id != "" && checkLabel("build id", id) == nil
}

func unquote(s string) string {
	if n := len(s); n >= 2 && s[0] == s[n-1] && (s[0] == '"' || s[0] == '\'') {
		return s[1 : n-1]
	}
	return s
}
