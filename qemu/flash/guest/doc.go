// SPDX-License-Identifier: Apache-2.0

// Package guest holds the tests that run on the board with raw flash, as its
// init: package flash builds and starts it. Anywhere else they are skipped.
package guest
