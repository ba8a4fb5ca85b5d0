# SPDX-License-Identifier: Apache-2.0
#
# docker build -t localhost/waggle:0.1.0 .
#
# helm/image/build makes the same image without a daemon; it reads LABEL and ENTRYPOINT from here
# and lays out the files with the same helm/image/rootfs.

FROM debian:bookworm-slim AS build
WORKDIR /src
COPY selftests/lib/packages.sh selftests/lib/packages.sh
RUN selftests/lib/packages.sh build
COPY . .
RUN meson setup -Dtests=false /build && ninja -C /build && \
	helm/image/rootfs /build /rootfs

FROM scratch
COPY --from=build /rootfs /
LABEL org.opencontainers.image.title="waggle"
LABEL org.opencontainers.image.description="eBPF dataplane and kube-proxy replacement"
LABEL org.opencontainers.image.version="0.1.0"
LABEL org.opencontainers.image.licenses="Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"
ENTRYPOINT ["/usr/bin/waggle-agent"]
