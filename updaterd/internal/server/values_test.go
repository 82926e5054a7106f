// SPDX-License-Identifier: Apache-2.0

package server

import (
	"testing"

	"github.com/updaterd/updaterd/updaterd/internal/update"
)

func TestMessageOfAJob(t *testing.T) {
	j := update.JobStatus{Waiting: "for the network", Result: update.Result{Message: "an old one"}}
	if got := jobValues(&j)["Message"].Value(); got != "for the network" {
		t.Errorf("while it waits: %q", got)
	}
	j.Finished, j.Result.Message = true, "the end"
	if got := jobValues(&j)["Message"].Value(); got != "the end" {
		t.Errorf("at its end: %q", got)
	}
}
