// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"testing"
)

// TestInterruptedWorkTellsNothing: a daemon that is told to end in a trial has
// not judged it, however its checks end and whoever is listening.
func TestInterruptedWorkTellsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := &work{outcome: make(chan Event, 1)}
	for range 100 {
		w.send(ctx, Event{Kind: EventUnhealthy})
	}
	if len(w.outcome) != 0 {
		t.Fatal("an interrupted check was taken for a verdict")
	}
	w.send(t.Context(), Event{Kind: EventUnhealthy})
	if len(w.outcome) != 1 {
		t.Fatal("a verdict was lost")
	}
}
