// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"github.com/updaterd/updaterd/updaterd/internal/health"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// What the state machine expects of this package.
var (
	_ update.Health   = (*health.Checker)(nil)
	_ update.Watchdog = (*health.Watchdog)(nil)
	_ update.Named    = (*health.Unhealthy)(nil)
)
