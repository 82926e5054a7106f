// SPDX-License-Identifier: Apache-2.0

// Package provenance writes and reads the statement of where the images of a
// bundle come from: an in-toto Statement with SLSA's provenance, as any tool for
// such statements reads it. docs/evidence.md has the meaning of each field.
//
// Its one contract: the same statement gives the same bytes, and [Parse] takes
// nothing but such bytes.
//
//	s := provenance.New(subjects, predicate)
//	b, err := s.Marshal()
//	s, err = provenance.Parse(b)
//
// The package signs nothing and verifies nothing: a bundle's manifest pins the
// statement, and the manifest is signed.
package provenance
