// SPDX-License-Identifier: Apache-2.0

// Package permit is the signed permit to go back: it lets certain devices install
// releases below their version floor, for a while.
//
// Its contract: [Verify] believes a permit only under the policy of the device, as
// the class [Class], and nothing is read of it before. [Permit.Allows] then says
// whether it is for a device, a release and a time. What becomes of the floor is
// decided by whoever confirms the release; see docs/floors.md.
//
//	v, err := permit.Verify(file, policy, timeFloor)
//	if err == nil {
//		err = v.Allows(permit.Device{Compatible: "demo-board", ID: id}, 11, now)
//	}
package permit
