// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
)

// ErrIntact: a copy of the environment is intact, so there is nothing to restore.
var ErrIntact = errors.New("the boot environment is not lost")

// Restore replaces a lost environment: every copy gets defaults, with change
// made to them. The change has to say which slot is started, and what is known
// of the other one. With force, it replaces an intact environment as well.
//
// It is the only way in which this package writes while no copy is intact, and
// it does so only when it is called: nothing else here falls back to defaults.
func (c *Control) Restore(defaults *Env, change bootctl.Change, force bool) error {
	env := defaults.Clone()
	if err := c.prepare(env, change); err != nil {
		return fmt.Errorf("restore boot environment: %w", err)
	}
	release, err := c.store.Lock(true)
	if err != nil {
		return err
	}
	defer release()
	s, err := c.read()
	switch {
	case err == nil && !force:
		return fmt.Errorf("restore boot environment: %w: %d of its copies are intact", ErrIntact, s.intact)
	case err == nil:
		err = c.replace(s, env)
	case !errors.Is(err, bootctl.ErrDamaged):
		return err
	default:
		if !force {
			if err := c.misread(); err != nil {
				return fmt.Errorf("restore boot environment: %w", err)
			}
		}
		err = c.anew(env)
	}
	if err != nil {
		return fmt.Errorf("restore boot environment: %w", err)
	}
	return nil
}

// Restorable tells why Restore would refuse defaults, before they are needed.
func (c *Control) Restorable(defaults *Env) error {
	env := defaults.Clone()
	if err := c.prepare(env, bootctl.Change{Primary: bootctl.SlotA, Trial: bootctl.TrialBegin, NotBad: slots[:]}); err != nil {
		return fmt.Errorf("restore boot environment: %w", err)
	}
	size, n := c.store.Geometry()
	_, err := EncodeCopy(env, 0, size, n == 2)
	return err
}

// prepare makes the change in memory and checks what came of it.
func (c *Control) prepare(env *Env, change bootctl.Change) error {
	if change.Primary == "" {
		return errors.New("internal error: no slot to start is given")
	}
	if err := checkChange(change); err != nil {
		return err
	}
	scheme, err := c.scheme.of(env)
	if err != nil {
		return err
	}
	if err := scheme.apply(env, change); err != nil {
		return err
	}
	status, err := scheme.status(env)
	if err != nil {
		return err
	}
	if len(status.Problems) > 0 {
		return fmt.Errorf("the defaults lack what a trial needs: %s", strings.Join(status.Problems, "; "))
	}
	return nil
}

// replace brings every copy to env, while s is in force: as in a change of both
// copies, the one in force is written last.
func (c *Control) replace(s state, env *Env) error {
	_, n := c.store.Geometry()
	for range n {
		if err := c.write(s, env); err != nil {
			return err
		}
		var err error
		if s, err = c.read(); err != nil {
			return err
		}
	}
	return nil
}

// anew writes every copy while none is intact. A cut leaves as little as there
// was before, or a copy that is whole. In both conventions flag 1 wins over 0.
// What one place cannot take the other one may.
func (c *Control) anew(env *Env) error {
	size, n := c.store.Geometry()
	var failed []error
	for i := range n {
		image, err := EncodeCopy(env, byte(1-i), size, n == 2)
		if err != nil {
			return err
		}
		if err := c.put(i, image); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// misread is an error if a copy may be intact after all: for who reads it with
// another number of copies, since then fw_env.config is what is wrong, or once
// the medium answers again. One that UBI or the flash itself calls lost is not.
func (c *Control) misread() error {
	_, n := c.store.Geometry()
	for i := range n {
		image, err := c.store.ReadCopy(i)
		switch {
		case errors.Is(err, unix.EIO), errors.Is(err, unix.EBADMSG), errors.Is(err, unix.EUCLEAN):
			return fmt.Errorf("%w: the copy may be intact: switch the device off and on, and try again; if it stays so, \"updater-bootctl restore --force\" writes over it", err)
		case err == nil && DecodeCopy(image, n == 1).Valid:
			return fmt.Errorf("%s: correct fw_env.config, the environment is there", c.describe(i, image, n))
		}
	}
	return nil
}
