// SPDX-License-Identifier: Apache-2.0

package bundle

import "errors"

// What can be wrong with a bundle. A signature that is not trusted is an error
// of package sign and stays visible to errors.Is.
var (
	// ErrMalformed: the bundle breaks a rule of the format. Fetching it again does not help.
	ErrMalformed = errors.New("malformed bundle")
	// ErrTruncated: the file is shorter than its manifest says. It is also ErrMalformed.
	ErrTruncated = errors.New("truncated bundle")
	// ErrTrailing: the file goes on where its manifest says it ends. It is also ErrMalformed.
	ErrTrailing = errors.New("trailing bytes after the bundle")
	// ErrEncoded: encoded bytes are not those that were signed. Fetch them again.
	ErrEncoded = errors.New("encoded bytes differ from the signed ones")
	// ErrSource: the patch was applied, but the source is not what it was made
	// for. The chunk has to come from the full recipe.
	ErrSource = errors.New("source differs from the one the delta was made for")
	// ErrContent: authentic bytes do not decode to the chunk that was signed. The bundle was built wrong.
	ErrContent = errors.New("decoded chunk differs from the signed one")
)
