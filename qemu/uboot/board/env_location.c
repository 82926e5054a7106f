/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goes into the board's own code. The environment is loaded from two places:
 * first the defaults that are compiled in, boot commands and all, then the
 * variables on the disk that are listed as writeable. It is saved to the disk
 * alone, of which U-Boot by itself would make the place with the higher rank.
 */
#include <env_internal.h>

enum env_location env_get_location(enum env_operation op, int prio)
{
	static const enum env_location load[] = { ENVL_NOWHERE, ENVL_MMC };

	if (op != ENVOP_LOAD && op != ENVOP_INIT)
		return prio == 0 ? ENVL_MMC : ENVL_UNKNOWN;
	return prio < 2 ? load[prio] : ENVL_UNKNOWN;
}
