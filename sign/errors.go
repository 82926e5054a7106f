// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"errors"
	"fmt"
)

// Errors that a caller can tell apart.
var (
	// ErrMalformed: the envelope is not one, whoever made it.
	ErrMalformed = errors.New("malformed envelope")
	// ErrUnsigned: nobody has signed the envelope yet. It is an ErrMalformed.
	ErrUnsigned = fmt.Errorf("%w: it was never signed", ErrMalformed)
	// ErrUntrusted: the envelope is well-formed, but the policy does not accept it:
	// not enough keys that it believes have signed it.
	ErrUntrusted = errors.New("untrusted signature")
	// ErrPayloadType: the envelope holds something else than what was asked for. It is an ErrUntrusted.
	ErrPayloadType = fmt.Errorf("%w: wrong payload type", ErrUntrusted)
	// ErrKey: a key or a keyring cannot be used.
	ErrKey = errors.New("unusable key")
	// ErrPolicy: a policy file cannot be used.
	ErrPolicy = errors.New("unusable policy")
	// ErrPassphrase: the private key is encrypted, and there is no passphrase or a wrong one. It is an ErrKey.
	ErrPassphrase = fmt.Errorf("%w: passphrase", ErrKey)
)
