// SPDX-License-Identifier: Apache-2.0

// Package device puts the simulated board together with the product: systems
// that have updaterd baked in, the bundles that update them, and a device that
// is switched on and off and asked what it did. It is what the scenarios and
// the demonstration have in common.
package device
