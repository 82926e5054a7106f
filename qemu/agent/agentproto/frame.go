// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// MaxFrame is the largest body of a frame.
const MaxFrame = 4 << 20

// maxBlock is how much of a file or of an output goes into one frame; as base64 it fits MaxFrame twice.
const maxBlock = 1 << 20

// lengthDigits is the number of hexadecimal digits of a frame's length.
const lengthDigits = 8

// mark begins each frame. Its first byte never occurs in UTF-8 text, so neither
// in a length nor in a body.
var mark = [4]byte{0xff, 'u', 'p', 0xfe}

// A request asks the guest for one thing; Cmd says which.
type request struct {
	ID  uint64 `json:"id"`
	Cmd string `json:"cmd"` // ping, exec, put, get

	Argv    []string      `json:"argv,omitempty"`
	Env     []string      `json:"env,omitempty"`
	Stdin   []byte        `json:"stdin,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`

	Path   string `json:"path,omitempty"`
	Mode   uint32 `json:"mode,omitempty"`
	Offset int64  `json:"offset,omitempty"`
	Data   []byte `json:"data,omitempty"`
	Last   bool   `json:"last,omitempty"`
}

// A response answers the request with the same ID. Error is set if the agent
// could not do what was asked; a command that fails is no such error.
type response struct {
	ID    uint64 `json:"id"`
	Error string `json:"error,omitempty"`

	Result
	Data []byte `json:"data,omitempty"`
	Last bool   `json:"last,omitempty"`
}

// A Result is how a command ended. Outputs longer than 1 MiB are cut, and Cut tells so.
type Result struct {
	Stdout   []byte `json:"stdout,omitempty"`
	Stderr   []byte `json:"stderr,omitempty"`
	Cut      bool   `json:"cut,omitempty"`
	Exit     int    `json:"exit"` // 128 + signal if a signal ended it
	TimedOut bool   `json:"timed_out,omitempty"`
}

func writeFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	if len(body) > MaxFrame {
		return fmt.Errorf("encode frame: %d bytes, at most %d are allowed", len(body), MaxFrame)
	}
	frame := fmt.Appendf(nil, "%s%0*x", mark[:], lengthDigits, len(body))
	_, err = w.Write(append(frame, body...))
	return err
}

// readFrame skips to the next whole frame. What is no frame is dropped: it is
// the rest of one that a restart of the other end has cut.
func readFrame(r *bufio.Reader, v any) error {
	for {
		if err := skipToMark(r); err != nil {
			return err
		}
		body, err := readBody(r)
		if errors.Is(err, errCut) {
			continue
		}
		if err != nil {
			return err
		}
		if json.Unmarshal(body, v) == nil {
			return nil
		}
	}
}

// readBody reads a length and as many bytes.
func readBody(r *bufio.Reader) ([]byte, error) {
	digits, err := readText(r, lengthDigits)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(string(digits), 16, 32)
	if err != nil || n > MaxFrame {
		return nil, errCut
	}
	return readText(r, int(n))
}

// errCut tells that what was read is no whole frame.
var errCut = errors.New("frame is cut")

// readText reads n bytes of text. The mark's first byte among them can only be
// that of a new frame, at which reading goes on.
func readText(r *bufio.Reader, n int) ([]byte, error) {
	text := make([]byte, 0, min(n, 64<<10))
	for len(text) < n {
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		if b == mark[0] {
			return nil, errors.Join(errCut, r.UnreadByte())
		}
		text = append(text, b)
	}
	return text, nil
}

func skipToMark(r *bufio.Reader) error {
	for matched := 0; matched < len(mark); {
		b, err := r.ReadByte()
		if err != nil {
			return err
		}
		switch b {
		case mark[matched]:
			matched++
		case mark[0]:
			matched = 1
		default:
			matched = 0
		}
	}
	return nil
}
