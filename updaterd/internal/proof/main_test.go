// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"os"
	"runtime/debug"
	"testing"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // many short lives
	debug.SetMemoryLimit(512 << 20)
	os.Exit(m.Run())
}
