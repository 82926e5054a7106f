// SPDX-License-Identifier: Apache-2.0

// Package sign puts a payload into a signed envelope and takes it out again,
// and holds the policy of whom to believe: a keyring and a threshold.
//
// The envelope is a DSSE (Dead Simple Signing Envelope) in JSON. The one
// contract of this package: the only way to a payload leads through
// [Keyring.Verify], which returns exactly the bytes that were signed, under
// exactly the payload type that was asked for, by at least threshold different
// keys of the keyring, or returns an error and nothing else.
//
//	signer, err := sign.LoadSigner(ctx, "release.key", askPassphrase)
//	envelope, err := sign.Seal("application/vnd.example+json", payload, signer)
//	keyring, err := sign.LoadKeyring("/etc/updaterd/keys")
//	verified, err := keyring.Verify(envelope, "application/vnd.example+json", 1)
//
// # Keys
//
// ECDSA on P-256 (with SHA-256) and Ed25519. Public keys are PEM files of type
// "PUBLIC KEY", as written by "openssl pkey -pubout" and by cosign. Private
// keys are PKCS#8 in PEM, plain ("PRIVATE KEY"), or with a passphrase: in
// PKCS#8's own encryption ("ENCRYPTED PRIVATE KEY", "openssl genpkey
// -aes-256-cbc"), or in sigstore's ("ENCRYPTED SIGSTORE PRIVATE KEY", "cosign
// generate-key-pair"). [GenerateKey] writes sigstore's, whose key derivation
// (scrypt) is much harder to guess against than the one OpenSSL uses by default.
//
// A key id is the SHA-256 of the public key, in hex. Key ids inside an envelope
// are written by whoever had the envelope in hand: they only decide which key
// is tried first, and what Verify reports comes from the keyring.
//
// # Envelopes
//
// There is one way to write an envelope: compact JSON with the members
// payloadType, payload and signatures, each signature with keyid and sig, and
// base64 in the standard alphabet with padding. Anything that would not come
// out the same when written again (unknown, repeated or differently spelled
// members, white space, trailing bytes) is malformed. Sizes are bounded by
// [MaxEnvelope], [MaxSignatures] and [MaxKeys].
//
// # What it does not do
//
// It knows nothing of updates, of expiry or of revocation: a key is withdrawn
// by taking its file out of the keyring. It does not guard the private key
// while it is in memory.
package sign
