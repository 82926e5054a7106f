// SPDX-License-Identifier: Apache-2.0

//go:build !race

package install

// raceDetector: the program has the race detector in it, which takes memory of its own.
const raceDetector = false
