// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"time"

	"github.com/updaterd/updaterd/bundle/permit"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// Permit verifies a permit, and that it lets this device install a release with that
// sequence now.
func (e *Engine) Permit(envelope []byte, sequence uint64, now time.Time) (*update.Permit, error) {
	policy, err := e.o.Policy()
	if err != nil {
		return nil, named(update.NameUntrustedSignature, err)
	}
	p, err := permit.Verify(envelope, policy, e.o.TimeFloor())
	switch {
	case errors.Is(err, sign.ErrUntrusted):
		return nil, named(update.NameUntrustedSignature, err)
	case err == nil:
		err = p.Allows(permit.Device{Compatible: e.o.Compatible, ID: e.o.DeviceID, Groups: e.o.Groups}, sequence, now)
	}
	if err != nil {
		return nil, named(update.NameNotPermitted, err)
	}
	return &update.Permit{ID: p.ID, First: p.First}, nil
}
