# The plugin's rootfs, for people who build with Docker: the same steps as make bundle,
# in a stage of plain Debian. The result has no shell and is no image to run; take the
# files out of it (docker build --output build/rootfs .) or type make bundle instead.
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends make
COPY . /src
WORKDIR /src
RUN make bundle

FROM scratch
COPY --from=build /src/build/bundle/rootfs/ /
