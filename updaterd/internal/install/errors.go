// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// fail makes an error with a stable name.
func fail(name, format string, args ...any) error {
	return &update.Error{Name: name, Err: fmt.Errorf(format, args...)}
}

// named gives err a stable name unless it has one, or is the caller's own wish to stop.
func named(name string, err error) error {
	var n update.Named
	if err == nil || errors.As(err, &n) || errors.Is(err, context.Canceled) {
		return err
	}
	return &update.Error{Name: name, Err: err}
}

// distrusted names an error of package bundle.
func distrusted(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sign.ErrUntrusted), errors.Is(err, sign.ErrKey):
		return named(update.NameUntrustedSignature, err)
	case errors.Is(err, bundle.ErrMalformed), errors.Is(err, bundle.ErrContent),
		errors.Is(err, bundle.ErrEncoded), errors.Is(err, sign.ErrMalformed):
		return named(update.NameMalformedBundle, err)
	}
	return named(update.NameInternal, err)
}

// unstored names an error of writing to the data directory.
func unstored(err error) error {
	var path *fs.PathError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return named(update.NameNoSpace, fmt.Errorf("store download: %w; make room, or use mode stream", err))
	case errors.As(err, &path):
		return named(update.NameMedium, fmt.Errorf("store download: %w", err))
	}
	return named(update.NameInternal, err)
}

// changed reports whether a Remote says that its file was replaced.
func changed(err error) bool {
	var c interface{ Changed() bool }
	return errors.As(err, &c) && c.Changed()
}

// truncated reports whether a Remote says that its file is too short.
func truncated(err error) bool {
	var t interface{ Truncated() bool }
	return errors.As(err, &t) && t.Truncated()
}

// unopened names an error of opening a slot's device.
func unopened(err error) error {
	if errors.Is(err, syscall.EBUSY) {
		return named(update.NameBadState, err)
	}
	return named(update.NameMedium, err)
}
