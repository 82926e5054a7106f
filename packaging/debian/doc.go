// SPDX-License-Identifier: Apache-2.0

// Package debian has no code: the directory makes Debian packages ("make deb"),
// and the tests here try them.
package debian
