// SPDX-License-Identifier: Apache-2.0

// Package sbom tells in which format a bill of materials is written: SPDX or
// CycloneDX, by what these formats say a file must have. It reads as far as it
// needs, holds one token at a time, and judges nothing else about the content.
//
//	mediaType, err := sbom.Detect(file)
package sbom

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The formats, as media types.
const (
	SPDXJSON      = "application/spdx+json"
	SPDXText      = "text/spdx"
	CycloneDXJSON = "application/vnd.cyclonedx+json"
	CycloneDXXML  = "application/vnd.cyclonedx+xml"
)

// ErrFormat is the error for a file that is none of them.
var ErrFormat = errors.New("it is neither SPDX (JSON or tag-value) nor CycloneDX (JSON or XML)")

// The marks of the formats: a member, a name space, the first tag.
const (
	spdxTag       = "SPDXVersion: SPDX-"
	spdxContext   = "https://spdx.org/rdf/3."
	cyclonedxName = "http://cyclonedx.org/schema/bom/"
)

// maxMark bounds what is read before a mark that must be at the start.
const maxMark = 64 << 10

// Detect returns the media type of a bill of materials.
func Detect(r io.Reader) (string, error) {
	b := bufio.NewReaderSize(r, maxMark)
	start, err := b.Peek(maxMark)
	if err != nil && err != io.EOF {
		return "", err
	}
	switch text := bytes.TrimLeft(start, " \t\r\n"); {
	case len(text) == 0:
		return "", fmt.Errorf("it is empty: %w", ErrFormat)
	case text[0] == '{':
		return detectJSON(b)
	case text[0] == '<':
		return detectXML(start)
	}
	for line := range strings.Lines(string(start)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, spdxTag):
			return SPDXText, nil
		}
		break
	}
	return "", ErrFormat
}

// detectJSON looks at the members of the outermost object, wherever they are.
func detectJSON(r io.Reader) (string, error) {
	dec := json.NewDecoder(r)
	dec.UseNumber()
	if _, err := dec.Token(); err != nil {
		return "", badJSON(err)
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return "", badJSON(err)
		}
		value, err := dec.Token()
		if err != nil {
			return "", badJSON(err)
		}
		text, _ := value.(string)
		switch {
		case key == "spdxVersion" && strings.HasPrefix(text, "SPDX-"), key == "@context" && strings.HasPrefix(text, spdxContext):
			return SPDXJSON, nil
		case key == "bomFormat" && text == "CycloneDX":
			return CycloneDXJSON, nil
		}
		if err := skip(dec, value); err != nil {
			return "", badJSON(err)
		}
	}
	return "", ErrFormat
}

// skip passes over the rest of a value that began with token t.
func skip(dec *json.Decoder, t json.Token) error {
	for depth := 0; ; {
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
		var err error
		if t, err = dec.Token(); err != nil {
			return err
		}
	}
}

func badJSON(err error) error { return fmt.Errorf("%w: it begins as JSON: %v", ErrFormat, err) }

func detectXML(start []byte) (string, error) {
	dec := xml.NewDecoder(bytes.NewReader(start))
	for {
		t, err := dec.Token()
		if err != nil {
			return "", fmt.Errorf("%w: it begins as XML: %v", ErrFormat, err)
		}
		if e, ok := t.(xml.StartElement); ok {
			if e.Name.Local == "bom" && strings.HasPrefix(e.Name.Space, cyclonedxName) {
				return CycloneDXXML, nil
			}
			return "", ErrFormat
		}
	}
}
