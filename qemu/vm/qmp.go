// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"sync"
)

// A monitor listens to QEMU's machine protocol and keeps the events.
type monitor struct {
	conn    net.Conn
	mu      sync.Mutex
	events  []string
	changed chan struct{}
	done    chan struct{}
}

func openMonitor(path string) (*monitor, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open QEMU's monitor: %w", err)
	}
	m := &monitor{conn: conn, changed: make(chan struct{}), done: make(chan struct{})}
	if _, err := conn.Write([]byte(`{"execute":"qmp_capabilities"}` + "\n")); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open QEMU's monitor: %w", err)
	}
	go m.listen()
	return m, nil
}

func (m *monitor) listen() {
	defer close(m.done)
	dec := json.NewDecoder(m.conn)
	for {
		var message struct {
			Event string `json:"event"`
		}
		if dec.Decode(&message) != nil {
			return
		}
		if message.Event == "" {
			continue
		}
		m.mu.Lock()
		m.events = append(m.events, message.Event)
		close(m.changed)
		m.changed = make(chan struct{})
		m.mu.Unlock()
	}
}

func (m *monitor) seen() ([]string, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events), m.changed
}

func (m *monitor) close() {
	m.conn.Close()
	<-m.done
}
