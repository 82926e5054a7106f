// SPDX-License-Identifier: Apache-2.0

// Package sign puts a payload into a signed envelope and takes it out again,
// and holds the policy of whom to believe for what.
//
// The envelope is a DSSE (Dead Simple Signing Envelope) in JSON. The one
// contract of this package: the only way to a payload leads through
// [Policy.Verify], which returns exactly the bytes that were signed, under
// exactly the payload type that was asked for, by as many different keys as the
// policy asks of such a payload, or returns an error and nothing else.
//
//	signer, err := sign.LoadSigner(ctx, "release.key", askPassphrase)
//	envelope, err := sign.Seal("application/vnd.example+json", payload, signer)
//	keyring, err := sign.LoadKeyring("/etc/updaterd/keys")
//	policy, err := sign.LoadPolicy("/etc/updaterd/policy.toml", keyring) // or keyring.Policy(1)
//	verified, err := policy.Verify(envelope, "application/vnd.example+json", notBefore, claims)
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
// # Certificates
//
// A keyring may hold certificates of authorities beside keys. Then the holder of a
// certificate for code signing that one of them issued is believed like a key of
// the keyring, where the policy says so. The certificate and the intermediate ones
// come with the signature ([WithChain]). Their validity, and that of keys in a
// policy, is judged by the time that the payload claims and by the earliest time
// that it can be now: no clock is asked. The system's certificates are never used.
//
// # Signing elsewhere
//
// [Unsigned] makes an envelope that nobody accepts. [Attach] puts into it the
// signatures of an envelope that was signed elsewhere over the same payload, and
// [AttachSignature] one that was made by something that knows no envelopes.
//
// # Logs
//
// A signature may come with entries of transparency logs: Rekor's, of version 1 or 2.
// A policy that has the key of a log in its keyring can ask for them. They are
// verified without asking anybody, and bound to the very signature, key and payload.
// No time that a log states is believed.
//
// # Envelopes
//
// There is one way to write an envelope: compact JSON with the members
// payloadType, payload and signatures, each signature with keyid, sig and, if it has
// a certificate, chain, and, if a log has it, log, and base64 in the standard alphabet
// with padding. Anything that would not come out the same when written again
// (unknown, repeated or differently spelled members, white space, trailing bytes) is
// malformed. Sizes are bounded by
// [MaxEnvelope], [MaxSignatures], [MaxChain], [MaxEntries], [MaxKeys] and [MaxAuthorities].
//
// # What it does not do
//
// It knows nothing of updates: what a payload claims to be, its reader tells. It
// does not guard the private key while it is in memory.
package sign
