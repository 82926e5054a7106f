// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"sync"
)

// A Console keeps all that the serial line has printed. Expect reads on from
// where the last match ended.
type Console struct {
	mu      sync.Mutex
	text    []byte
	next    int
	changed chan struct{}
	closed  bool
	mirror  io.Writer
}

func newConsole(mirror io.Writer) *Console {
	return &Console{changed: make(chan struct{}), mirror: mirror}
}

// Write appends what the device printed.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, p...)
	if c.mirror != nil {
		_, _ = c.mirror.Write(p) // a failing copy must not stop the device
	}
	c.wake()
	return len(p), nil
}

func (c *Console) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.wake()
}

// Text is everything printed so far, without carriage returns.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(bytes.ReplaceAll(c.text, []byte("\r"), nil))
}

// Count is how often pattern is found in everything printed so far.
func (c *Console) Count(pattern string) int {
	return len(regexp.MustCompile(pattern).FindAllString(c.Text(), -1))
}

// Expect waits until pattern (a regular expression) is found after the last
// match, and returns what it matched.
func (c *Console) Expect(ctx context.Context, pattern string) (string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return "", err
	}
	for {
		c.mu.Lock()
		if at := re.FindIndex(c.text[c.next:]); at != nil {
			found := string(c.text[c.next+at[0] : c.next+at[1]])
			c.next += at[1]
			c.mu.Unlock()
			return found, nil
		}
		tail := c.text[max(c.next, len(c.text)-2000):]
		changed, closed := c.changed, c.closed
		report := fmt.Sprintf("console never printed %q; its last words:\n%s", pattern, tail)
		c.mu.Unlock()
		if closed {
			return "", fmt.Errorf("QEMU has ended: %s", report)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", fmt.Errorf("%w: %s", context.Cause(ctx), report)
		}
	}
}
