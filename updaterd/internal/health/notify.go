// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"
	"net"
)

// Notify sends a state such as "READY=1" to the service manager. socket is the
// value of NOTIFY_SOCKET; if it is "", nobody listens and nothing is sent.
func Notify(socket, state string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	return nil
}
