// SPDX-License-Identifier: Apache-2.0

package yocto

// The layers, beside this file.
const layer = "meta-updaterd"
