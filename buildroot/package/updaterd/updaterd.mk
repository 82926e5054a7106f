################################################################################
#
# updaterd
#
################################################################################

# SPDX-License-Identifier: Apache-2.0

UPDATERD_VERSION = 0.1.0
# It has all modules in vendor/ already, so its name is not that of what
# Buildroot makes of a tarball without them:
# check-package disable RemoveDefaultPackageSourceVariable
UPDATERD_SOURCE = updaterd-$(UPDATERD_VERSION).tar.gz
UPDATERD_SITE = https://github.com/updaterd/updaterd/releases/download/v$(UPDATERD_VERSION)
UPDATERD_LICENSE = Apache-2.0, BSD-2-Clause, BSD-3-Clause, MIT
UPDATERD_LICENSE_FILES = \
	LICENSE \
	vendor/github.com/BurntSushi/toml/COPYING \
	vendor/github.com/cavaliergopher/grab/v3/LICENSE \
	vendor/github.com/godbus/dbus/v5/LICENSE \
	vendor/github.com/google/go-containerregistry/LICENSE \
	vendor/github.com/klauspost/compress/LICENSE \
	vendor/github.com/klauspost/compress/internal/snapref/LICENSE \
	vendor/github.com/klauspost/compress/zstd/internal/xxhash/LICENSE.txt \
	vendor/github.com/opencontainers/go-digest/LICENSE \
	vendor/github.com/secure-systems-lab/go-securesystemslib/LICENSE \
	vendor/github.com/sigstore/protobuf-specs/COPYRIGHT.txt \
	vendor/github.com/sigstore/protobuf-specs/LICENSE \
	vendor/github.com/sigstore/sigstore/COPYRIGHT.txt \
	vendor/github.com/sigstore/sigstore/LICENSE \
	vendor/github.com/u-root/u-root/LICENSE \
	vendor/github.com/youmark/pkcs8/LICENSE \
	vendor/golang.org/x/crypto/LICENSE \
	vendor/golang.org/x/mod/LICENSE \
	vendor/golang.org/x/sync/LICENSE \
	vendor/golang.org/x/sys/LICENSE \
	vendor/golang.org/x/term/LICENSE \
	vendor/google.golang.org/genproto/googleapis/api/LICENSE \
	vendor/google.golang.org/protobuf/LICENSE
HOST_UPDATERD_LICENSE = Apache-2.0, BSD-2-Clause, BSD-3-Clause, MIT, MPL-2.0
HOST_UPDATERD_LICENSE_FILES = \
	LICENSE \
	vendor/cloud.google.com/go/auth/LICENSE \
	vendor/cloud.google.com/go/auth/oauth2adapt/LICENSE \
	vendor/cloud.google.com/go/compute/metadata/LICENSE \
	vendor/cloud.google.com/go/iam/LICENSE \
	vendor/cloud.google.com/go/kms/LICENSE \
	vendor/cloud.google.com/go/longrunning/LICENSE \
	vendor/github.com/Azure/azure-sdk-for-go/sdk/azcore/LICENSE.txt \
	vendor/github.com/Azure/azure-sdk-for-go/sdk/azidentity/LICENSE.txt \
	vendor/github.com/Azure/azure-sdk-for-go/sdk/internal/LICENSE.txt \
	vendor/github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys/LICENSE.txt \
	vendor/github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/internal/LICENSE.txt \
	vendor/github.com/AzureAD/microsoft-authentication-library-for-go/LICENSE \
	vendor/github.com/BurntSushi/toml/COPYING \
	vendor/github.com/aws/aws-sdk-go-v2/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/config/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/credentials/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/feature/ec2/imds/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/internal/configsources/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/internal/endpoints/v2/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/internal/sync/singleflight/LICENSE \
	vendor/github.com/aws/aws-sdk-go-v2/internal/v4a/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/service/internal/accept-encoding/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/service/internal/presigned-url/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/service/kms/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/service/signin/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/service/sso/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/service/ssooidc/LICENSE.txt \
	vendor/github.com/aws/aws-sdk-go-v2/service/sts/LICENSE.txt \
	vendor/github.com/aws/smithy-go/LICENSE \
	vendor/github.com/aws/smithy-go/internal/sync/singleflight/LICENSE \
	vendor/github.com/cenkalti/backoff/v4/LICENSE \
	vendor/github.com/cespare/xxhash/v2/LICENSE.txt \
	vendor/github.com/ebitengine/purego/LICENSE \
	vendor/github.com/felixge/httpsnoop/LICENSE.txt \
	vendor/github.com/go-jose/go-jose/v4/LICENSE \
	vendor/github.com/go-jose/go-jose/v4/json/LICENSE \
	vendor/github.com/go-logr/logr/LICENSE \
	vendor/github.com/go-logr/stdr/LICENSE \
	vendor/github.com/golang-jwt/jwt/v5/LICENSE \
	vendor/github.com/google/go-containerregistry/LICENSE \
	vendor/github.com/google/s2a-go/LICENSE.md \
	vendor/github.com/google/uuid/LICENSE \
	vendor/github.com/googleapis/enterprise-certificate-proxy/LICENSE \
	vendor/github.com/googleapis/gax-go/v2/LICENSE \
	vendor/github.com/hashicorp/errwrap/LICENSE \
	vendor/github.com/hashicorp/go-cleanhttp/LICENSE \
	vendor/github.com/hashicorp/go-multierror/LICENSE \
	vendor/github.com/hashicorp/go-retryablehttp/LICENSE \
	vendor/github.com/hashicorp/go-rootcerts/LICENSE \
	vendor/github.com/hashicorp/go-secure-stdlib/parseutil/LICENSE \
	vendor/github.com/hashicorp/go-secure-stdlib/strutil/LICENSE \
	vendor/github.com/hashicorp/go-sockaddr/LICENSE \
	vendor/github.com/hashicorp/hcl/LICENSE \
	vendor/github.com/hashicorp/vault/api/LICENSE \
	vendor/github.com/jellydator/ttlcache/v3/LICENSE \
	vendor/github.com/klauspost/compress/LICENSE \
	vendor/github.com/klauspost/compress/internal/snapref/LICENSE \
	vendor/github.com/klauspost/compress/zstd/internal/xxhash/LICENSE.txt \
	vendor/github.com/kylelemons/godebug/LICENSE \
	vendor/github.com/mitchellh/go-homedir/LICENSE \
	vendor/github.com/mitchellh/mapstructure/LICENSE \
	vendor/github.com/natefinch/atomic/LICENSE \
	vendor/github.com/opencontainers/go-digest/LICENSE \
	vendor/github.com/pkg/browser/LICENSE \
	vendor/github.com/ryanuber/go-glob/LICENSE \
	vendor/github.com/secure-systems-lab/go-securesystemslib/LICENSE \
	vendor/github.com/sigstore/protobuf-specs/COPYRIGHT.txt \
	vendor/github.com/sigstore/protobuf-specs/LICENSE \
	vendor/github.com/sigstore/sigstore/COPYRIGHT.txt \
	vendor/github.com/sigstore/sigstore/LICENSE \
	vendor/github.com/sigstore/sigstore/pkg/signature/kms/aws/LICENSE \
	vendor/github.com/sigstore/sigstore/pkg/signature/kms/azure/LICENSE \
	vendor/github.com/sigstore/sigstore/pkg/signature/kms/gcp/LICENSE \
	vendor/github.com/sigstore/sigstore/pkg/signature/kms/hashivault/LICENSE \
	vendor/github.com/youmark/pkcs8/LICENSE \
	vendor/go.opentelemetry.io/auto/sdk/LICENSE \
	vendor/go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/LICENSE \
	vendor/go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp/LICENSE \
	vendor/go.opentelemetry.io/otel/LICENSE \
	vendor/go.opentelemetry.io/otel/metric/LICENSE \
	vendor/go.opentelemetry.io/otel/trace/LICENSE \
	vendor/golang.org/x/crypto/LICENSE \
	vendor/golang.org/x/mod/LICENSE \
	vendor/golang.org/x/net/LICENSE \
	vendor/golang.org/x/oauth2/LICENSE \
	vendor/golang.org/x/sync/LICENSE \
	vendor/golang.org/x/sys/LICENSE \
	vendor/golang.org/x/term/LICENSE \
	vendor/golang.org/x/text/LICENSE \
	vendor/golang.org/x/time/LICENSE \
	vendor/google.golang.org/api/LICENSE \
	vendor/google.golang.org/api/internal/third_party/uritemplates/LICENSE \
	vendor/google.golang.org/genproto/LICENSE \
	vendor/google.golang.org/genproto/googleapis/api/LICENSE \
	vendor/google.golang.org/genproto/googleapis/rpc/LICENSE \
	vendor/google.golang.org/grpc/LICENSE \
	vendor/google.golang.org/protobuf/LICENSE

# The Makefile has the flags of the device binary, and what goes where. It must
# not take a toolchain from the user's cache, and it is static: without cgo.
UPDATERD_MAKE = $(MAKE) -C $(@D) \
	GO=$(GO_BIN) \
	GOFLAGS="-mod=vendor -buildvcs=false -p=$(PARALLEL_JOBS)" \
	UPDATERD_CACHE=$(@D)/no-cache \
	VERSION=$(UPDATERD_VERSION)

define UPDATERD_BUILD_CMDS
	$(HOST_GO_TARGET_ENV) $(UPDATERD_MAKE) device \
		ARCH=$(GO_GOARCH) STRIPPED= OUT=$(@D)/bin/updaterd
endef

define UPDATERD_INSTALL_TARGET_CMDS
	$(UPDATERD_MAKE) install BINARY=$(@D)/bin/updaterd INIT=none \
		DESTDIR=$(TARGET_DIR)
endef

define UPDATERD_INSTALL_INIT_SYSTEMD
	$(UPDATERD_MAKE) install-init INIT=systemd DESTDIR=$(TARGET_DIR)
endef

define UPDATERD_INSTALL_INIT_SYSV
	$(UPDATERD_MAKE) install-init INIT=sysvinit INITSCRIPT=S80updaterd \
		DESTDIR=$(TARGET_DIR)
endef

UPDATERD_CONFIG = $(call qstrip,$(BR2_PACKAGE_UPDATERD_CONFIG))
ifneq ($(UPDATERD_CONFIG),)
define UPDATERD_INSTALL_CONFIG
	$(INSTALL) -D -m 0644 $(UPDATERD_CONFIG) \
		$(TARGET_DIR)/etc/updaterd/updaterd.toml
endef
UPDATERD_POST_INSTALL_TARGET_HOOKS += UPDATERD_INSTALL_CONFIG
endif

UPDATERD_KEYRING_DIR = $(call qstrip,$(BR2_PACKAGE_UPDATERD_KEYRING))
ifneq ($(UPDATERD_KEYRING_DIR),)
UPDATERD_KEYS = $(wildcard $(addprefix $(UPDATERD_KEYRING_DIR)/,*.pem *.pub *.crt *.crl *.tlog))
# A key that was taken out of the directory must not stay in the image, and a
# private one must not get there.
define UPDATERD_INSTALL_KEYRING
	$(Q)if grep -l 'PRIVATE KEY' $(UPDATERD_KEYS) /dev/null; then \
		echo "BR2_PACKAGE_UPDATERD_KEYRING: that is a private key, and devices get its public half alone (updater-sign public); take it away" >&2; \
		exit 1; \
	fi
	rm -f $(TARGET_DIR)/etc/updaterd/keys/*
	$(foreach f,$(UPDATERD_KEYS),\
		$(INSTALL) -m 0644 $(f) $(TARGET_DIR)/etc/updaterd/keys/
	)
endef
UPDATERD_POST_INSTALL_TARGET_HOOKS += UPDATERD_INSTALL_KEYRING
endif

# Said before hours of building rather than after them.
ifeq ($(BR2_PACKAGE_UPDATERD)$(BR_BUILDING),yy)
ifneq ($(value BR2_PACKAGE_UPDATERD_KEYRING),"")
ifeq ($(wildcard $(addprefix $(UPDATERD_KEYRING_DIR)/,*.pem *.pub *.crt)),)
$(error BR2_PACKAGE_UPDATERD_KEYRING is $(value BR2_PACKAGE_UPDATERD_KEYRING), which is "$(UPDATERD_KEYRING_DIR)" and holds no public key (*.pem, *.pub) or certificate (*.crt); make one: updater-sign keygen -o release)
endif
endif
ifneq ($(UPDATERD_CONFIG),$(wildcard $(UPDATERD_CONFIG)))
$(error BR2_PACKAGE_UPDATERD_CONFIG is "$(UPDATERD_CONFIG)", which is not there; name the file that becomes /etc/updaterd/updaterd.toml, or leave it empty)
endif
endif

define HOST_UPDATERD_BUILD_CMDS
	$(HOST_GO_HOST_ENV) $(UPDATERD_MAKE) tools TOOLS=$(@D)/bin
endef

define HOST_UPDATERD_INSTALL_CMDS
	$(UPDATERD_MAKE) install-tools TOOLS=$(@D)/bin PREFIX=$(HOST_DIR)
endef

$(eval $(golang-package))
$(eval $(host-golang-package))
