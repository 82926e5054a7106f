// SPDX-License-Identifier: Apache-2.0

// Package seal keeps what is in a bundle from those whom it is not for:
// docs/encryption.md.
//
// Each build has a content key of its own, which nobody keeps. It is in the
// manifest once for each recipient, wrapped by HPKE for a post-quantum hybrid of
// ML-KEM-768 and X25519 (X-Wing). With it, every piece of the payload that a
// digest pins is sealed by itself, by ChaCha20-Poly1305 with the piece's place in
// the payload as nonce: so a piece can be fetched alone, opens at its place only,
// and no nonce comes twice under a key.
//
// The package decides nothing about trust. What it opens was signed: the caller
// compares a piece with its digest before it has it opened.
package seal
