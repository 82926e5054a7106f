// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// MaxFrame is the largest body of a frame.
const MaxFrame = 4 << 20

// maxBlock is how much of a file or of an output goes into one frame; as base64 it fits MaxFrame twice.
const maxBlock = 1 << 20

// mark begins each frame. Its bytes never occur in JSON text.
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
	frame := append(mark[:len(mark):len(mark)], 0, 0, 0, 0)
	binary.BigEndian.PutUint32(frame[len(mark):], uint32(len(body)))
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
		head, err := r.Peek(4)
		if err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head)
		if n > MaxFrame {
			continue
		}
		if _, err := r.Discard(4); err != nil {
			return err
		}
		body, err := readBody(r, int(n))
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

// errCut tells that a new frame began inside a body.
var errCut = errors.New("frame is cut")

// readBody reads n bytes of JSON text. A byte of the mark in it can only be a
// new frame, at which reading goes on.
func readBody(r *bufio.Reader, n int) ([]byte, error) {
	body := make([]byte, 0, min(n, 64<<10))
	for len(body) < n {
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		if b == mark[0] {
			return nil, errors.Join(errCut, r.UnreadByte())
		}
		body = append(body, b)
	}
	return body, nil
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
