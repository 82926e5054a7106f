# SPDX-License-Identifier: Apache-2.0

include $(sort $(wildcard $(BR2_EXTERNAL_UPDATERD_PATH)/package/*/*.mk))

ifeq ($(BR2_PACKAGE_UPDATERD)$(BR2_TARGET_UBOOT_BUILD_SYSTEM_KCONFIG),yy)

UPDATERD_UBOOT_ENV = $(call qstrip,$(BR2_PACKAGE_UPDATERD_UBOOT_ENV))
ifneq ($(UPDATERD_UBOOT_ENV),)
# At each build, so that uboot-rebuild takes what was edited.
define UPDATERD_PREPARE_UBOOT
	$(UPDATERD_PKGDIR)/environment $(UPDATERD_UBOOT_ENV) > $(@D)/updaterd.env
endef
UBOOT_PRE_BUILD_HOOKS += UPDATERD_PREPARE_UBOOT
endif

ifeq ($(BR2_PACKAGE_UPDATERD_CHECK_UBOOT),y)
define UPDATERD_CHECK_UBOOT
	$(foreach f,$(UBOOT_KCONFIG_FRAGMENT_FILES),\
		$(UPDATERD_PKGDIR)/check-config $(f) $(@D)/.config
	)
endef
UBOOT_PRE_BUILD_HOOKS += UPDATERD_CHECK_UBOOT
endif

endif
