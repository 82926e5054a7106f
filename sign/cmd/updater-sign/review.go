// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/updaterd/updaterd/sign/cli"
)

// review shows what is to be signed: JSON with one member a line, exactly those
// that are there, in their order; other text as it is.
func review(payloadType string, payload []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		text := payload
		var indented bytes.Buffer
		if json.Indent(&indented, payload, "", "  ") == nil {
			text = indented.Bytes()
		}
		if !utf8.Valid(text) {
			return errors.New("not signed: this is no text that could be shown; look at it by other means, and give --digest")
		}
		_, err := fmt.Fprintf(w, "type    %s\nsize    %d bytes\ndigest  %s\n\n%s\n",
			visible(payloadType), len(payload), cli.Digest(payload), visible(string(bytes.TrimSuffix(text, []byte("\n")))))
		return err
	}
}

// visible makes everything seen that a terminal would act on in place of showing
// it: who wrote the text may want another one to be seen.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}
