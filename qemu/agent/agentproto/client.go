// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// A Client asks the agent behind a stream. Its methods may be called at the same time.
type Client struct {
	conn io.ReadWriteCloser

	sending sync.Mutex // one frame at a time

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan response
	closed  chan struct{}
	cause   error
}

// NewClient takes over conn.
func NewClient(conn io.ReadWriteCloser) *Client {
	// Starting at the clock keeps a client from taking answers that the one before it had asked for.
	c := &Client{conn: conn, next: uint64(time.Now().UnixNano()), waiting: map[uint64]chan response{}, closed: make(chan struct{})}
	go c.receive()
	return c
}

// Close ends the conversation.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) receive() {
	r := bufio.NewReaderSize(c.conn, 64<<10)
	for {
		var resp response
		if err := readFrame(r, &resp); err != nil {
			c.cause = fmt.Errorf("agent's stream ended: %w", err)
			close(c.closed)
			return
		}
		c.mu.Lock()
		answer := c.waiting[resp.ID]
		delete(c.waiting, resp.ID)
		c.mu.Unlock()
		if answer != nil {
			answer <- resp
		}
	}
}

func (c *Client) ask(ctx context.Context, req request) (*response, error) {
	answer := make(chan response, 1)
	c.mu.Lock()
	c.next++
	req.ID = c.next
	c.waiting[req.ID] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, req.ID)
		c.mu.Unlock()
	}()
	sent := make(chan error, 1)
	go func() { // the guest may not be reading: the context has to count here, too
		c.sending.Lock()
		defer c.sending.Unlock()
		sent <- writeFrame(c.conn, req)
	}()
	for {
		select {
		case err := <-sent:
			if err != nil {
				return nil, fmt.Errorf("ask agent: %w", err)
			}
			sent = nil
		case resp := <-answer:
			if resp.Error != "" {
				return nil, errors.New(resp.Error)
			}
			return &resp, nil
		case <-c.closed:
			return nil, c.cause
		case <-ctx.Done():
			return nil, fmt.Errorf("ask agent: %w", context.Cause(ctx))
		}
	}
}

// Ready returns once the agent answers. It asks again and again, because what
// is asked while the guest restarts may get lost.
func (c *Client) Ready(ctx context.Context) error {
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := c.ask(try, request{Cmd: "ping"})
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// A Command is a program to run as root. Timeout is at most a minute unless set.
type Command struct {
	Argv    []string
	Env     []string // in addition to the agent's own
	Stdin   []byte
	Timeout time.Duration
}

// Exec runs a command and returns how it ended; an error means that it did not run.
func (c *Client) Exec(ctx context.Context, cmd Command) (Result, error) {
	resp, err := c.ask(ctx, request{Cmd: "exec", Argv: cmd.Argv, Env: cmd.Env, Stdin: cmd.Stdin, Timeout: cmd.Timeout})
	if err != nil {
		return Result{}, fmt.Errorf("run %q in the guest: %w", cmd.Argv, err)
	}
	return resp.Result, nil
}

// Put writes a file in the guest, durably, and makes the directories above it.
func (c *Client) Put(ctx context.Context, path string, mode uint32, content []byte) error {
	for off := 0; ; off += maxBlock {
		end := min(off+maxBlock, len(content))
		req := request{Cmd: "put", Path: path, Mode: mode, Offset: int64(off), Data: content[off:end], Last: end == len(content)}
		if _, err := c.ask(ctx, req); err != nil {
			return fmt.Errorf("put %s into the guest: %w", path, err)
		}
		if req.Last {
			return nil
		}
	}
}

// Get reads a file of the guest; one longer than limit bytes is an error.
func (c *Client) Get(ctx context.Context, path string, limit int64) ([]byte, error) {
	var content []byte
	for {
		resp, err := c.ask(ctx, request{Cmd: "get", Path: path, Offset: int64(len(content))})
		if err != nil {
			return nil, fmt.Errorf("get %s from the guest: %w", path, err)
		}
		if int64(len(content)+len(resp.Data)) > limit {
			return nil, fmt.Errorf("get %s from the guest: longer than %d bytes", path, limit)
		}
		content = append(content, resp.Data...)
		if resp.Last {
			return content, nil
		}
	}
}
